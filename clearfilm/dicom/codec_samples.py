"""One tiny picture in every compressed transfer syntax, for the self test of the decoders.

Encoded from 16 flat squares of 8 x 8 pixels with values 100, 356, ... 3940 (12 bits; for JPEG baseline
divided by 16): libjpeg-turbo, CharLS, OpenJPEG, pydicom. Base 85.
"""

from typing import Final

SAMPLE_EDGE: Final = 32
SAMPLES: Final[dict[str, str]] = {
    "1.2.840.10008.1.2.4.50": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3"
        "JL}Y3k(Yi3<(Mf3je?W3kU!p03ZPY5di<h02KfM0RR910000000000000073ID_Z6c7Ob00000000000000000030+5iXv0R"
        "R9$0D|NK0RVtNAP@)y0s#PkKp+qw|Je"
    ),
    "1.2.840.10008.1.2.4.51": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3"
        "JL}Y3k(Yi3<(Mf3je_X3k(1t03ZPY5di<h02KfM0RR9100000000000000B4gbUd6c7Ob00000000000000000030+5iXv0R"
        "R9$0D~St0ss&IfCK;_0RRX9Kmq^|0DuGlAOQd$|Je"
    ),
    "1.2.840.10008.1.2.4.57": (
        "|JeWF01!$>Nk#wx0RR9200961|HA+a3;-"
        "YiAOQgp0RO}Q7XSeP0RaF20000000000000083km<)00;pA00jU5!Hfq$0CWHcKmY(x04M+y000UA1poqo00BS%pa4(+04M+"
        "y015yA1poqo0YCr%pa4(+C;$Ky015yF00Te(6aWeU1poj7fB`@Npa1|+04M+y000UA1poqo00BS%pa4(+04M+y015yA1poqo"
        "0YCr%pa4(+C;%D&0H6R+04M+e6aWeU1poj7fB`@Npa1|+04M+y000UA1poqo00BS%pa4(+04M+y015yA1poqo0YCuI00jU7f"
        "B`@N0H6R+04M+e6aWeU1poj7fB`@Npa1|+04M+y000UA1poqo00BS%pa4(+04M+y015yH|Je"
    ),
    "1.2.840.10008.1.2.4.70": (
        "|JeWF01!$>Nk#wx0RR9200961|HA+a3;-"
        "YiAOQgp0RO}Q761VO0RR910000000000000093;)^x2mt{A0RRBOj0FGzKmbqx02BZP00BS%08juF00jU50YCsy02BZK1pom"
        "+08jt`6aWPP0YCr%PyiGF1poj6Kmbqx6aWT*04M+o00Mvj0H6RU015yA0)POZ04M+e3IGCt0H6Q>C;$oo0)PMjpa3WU3IG5C"
        "fB>KXC;$Ko00Mvjpa3)g0YCsy02BZK1pom+08jt`6aWPP0YCr%PyiGF1poj6Kmbqx6aWAP00BS%PyhfF00jU6KmY(x02BZP0"
        "0E!?3IGCt0H6Q>C;$oo0)PMjpa3WU3IG5CfB>KXC;$Ko00Mvjpa1|U015yCfB*oX04M+o0007j0H6RU01yA!"
    ),
    "1.2.840.10008.1.2.4.80": (
        "|JeWc01FHNAOIi%0TBTI+5iXv0RR9100{6Pf)IoN00004f1p7GAqW5f000R8Awr5MqKE(ou_8$%l1T&X4#BuSA#k{KgyM0+9"
        "w!_j;&H+}oZ%i$U;qRDNg|3Upa4LMD58oeALycrQj`zmr722MfjK!j!aSVe9!_wNPT@T}g!Jwc)36`>r3gY0exV3L5QFguLJ"
        "))>XhIN(h$l{+!g_ZJ>D(u$aGssQdUpxw*gyP4L_{A*h=_=Mq9P(8@Q8?rh$o(Y7tg}^_+LK@=iz+(FQ5O}"
    ),
    "1.2.840.10008.1.2.4.81": (
        "|JeWc01FHNAOIi%0TBTI+5iXv0RRF302hQrk^lez00d-"
        "&M3Mji000DJh={0w0NALgiig;CHxPtJiE`vboL5~WoGH_)w9h?Ondhq0JpTXy=At4h0Ai$*Lo||U4A6{3ni}hWmn{C=v-@(-"
        "?aM#6EdJcH-"
        "~a#s0J9M!k^x&Jk}^pok(x@X51xJ(&%*imUq1`y;e7lrp8+pbQ#Dmgl~plSRTIxY3+Lf{{4bw{^YFfY7tetI*#"
    ),
    "1.2.840.10008.1.2.4.90": (
        "|4;u>04V?f0000W0000W00000000000000W0000W0000000000009dD0sm3}3;+NC0RROA1ONg5TmTb5U}$J?XlQU~XmDs~a"
        "A;_7|6~9q00BdCWnpw>WFTUBAWv{*Zc0!^M<8}(a&u{KZXhx)H7+v$kN^q*00000kpKbzlgI1?3CY9u0-"
        "xXv1b+m8Kf(EfNAe5}0dj2Cj|)9L)|@xM`~u<o1%MG^D@9j76HL$^zY>8F?HL^XK7@!6!2ATE`w4&-"
        "DU7GsR?Zp$)T@AD8U&Jve+(jJxs85`-uIn^fEY%EjCKEi!2ALs`via?Y!yxkR9$5N)VfMV9tZz_|Je"
    ),
    "1.2.840.10008.1.2.4.91": (
        "|4;u>04V?f0000W0000W00000000000000W0000W0000000000009dD0sm3}3;+NC0RROA1ONd4TmU0Nmmrq#mhhIqj{uJVj"
        "^Kw-hfs%Ta0PG$a7TC3chh%b|6~9q00BdCWnpw>WFTUBAWv{*Zc0!^M<8}(a&u{KZXhx)H7+v$kN^q*000011pop6lf(Z70e"
        "}g0Gr<2qIDg?lU;r1N02hbA{DI;81ON>Ic4!@g0t-"
        "Dq<o3y1V!%F;@ILV%5nk7D9h5)`g96NUu&Ut^d%AjLnDNos{r5QNW)fw162SUQL+>X57b%RV*a3r0SwA(~0h}%VAA{8%VWo%"
        "c3?gN@jUlmOS0XQ-%-"
        "m{ir?8`DB22sPklaNdOM7J>OM7J>OMMZ*e8(XB4uBzS6;26MT{?x9E%PXN00D%ALBACGtx|mOikbk_x=KYJ2dR|4Dpa^I00D"
        "%9-inw>XLgVcOgIWg87daFRaI40Raq>6006lsB$7!al1U_zNhJtb|Je"
    ),
    "1.2.840.10008.1.2.5": (
        "0ssI2KmY&$Kmh;%00000000000000000000000000000000000000000000000000000000000000000`2hI=`2zU^`2hI=`"
        "2zU^`2hI=`2zU^`2hI=`2zU^`2hI=`2zU^`2hI=`2zU^`2hI=`2zU^`2hI=`2zU^`2_g|`3Ct1`2_g|`3Ct1`2_g|`3Ct1`2"
        "_g|`3Ct1`2_g|`3Ct1`2_g|`3Ct1`2_g|`3Ct1`2_g|`3Ct1`3U(5`3m_9`3U(5`3m_9`3U(5`3m_9`3U(5`3m_9`3U(5`3m"
        "_9`3U(5`3m_9`3U(5`3m_9`3U(5`3m_9`3(6D`40IH`3(6D`40IH`3(6D`40IH`3(6D`40IH`3(6D`40IH`3(6D`40IH`3(6"
        "D`40IH`3(6D`40IH;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t;bh@t"
    ),
}
