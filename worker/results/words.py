"""The words of the results, shared by picture and report so that both say the same."""

from worker.results.model import StudyConclusion

NOT_DIAGNOSTIC = "Not for diagnostic use"


def plain(words: str) -> str:
    """Our own text as every Specific Character Set and the picture's font can show it: printable ASCII."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in words)


def short(words: str) -> str:
    """Our own text for a VR of LO: one value of at most 64 ASCII characters (PS3.5 6.2)."""
    return plain(words).replace("\\", "/")[:64]


def score_words(conclusion: StudyConclusion, index: int) -> str:
    """Score and operating point of the analysed film number `index`, from 0."""
    film, model = conclusion.films[index], conclusion.model
    assert film.score is not None
    assert model is not None
    score, threshold = _told_apart(film.score, model.operating_threshold)
    return f"score {score} (operating point {threshold})"


def film_number(conclusion: StudyConclusion, index: int) -> str:
    """Which film of how many, "film 2 of 3"."""
    return f"film {index + 1} of {len(conclusion.films)}"


def narrative(conclusion: StudyConclusion) -> str:
    """The whole result in a few sentences, ASCII."""
    sentences = [f"AI triage: {conclusion.decision.words}: {conclusion.reason}".rstrip(". ")]
    for index, film in enumerate(conclusion.films):
        if film.analysed:
            result = score_words(conclusion, index)
        else:
            result = f"not analysed: {film.reason or 'no reason given'}".rstrip(". ")
        sentences.append(f"{film_number(conclusion, index).capitalize()}: {result}")
    return plain(". ".join(sentences) + ".")


def _told_apart(score: float, threshold: float) -> tuple[str, str]:
    """Two probabilities with two decimals, or as many as it takes (up to six) to tell them apart."""
    for decimals in range(2, 7):
        texts = f"{score:.{decimals}f}", f"{threshold:.{decimals}f}"
        if texts[0] != texts[1]:
            break
    return texts
