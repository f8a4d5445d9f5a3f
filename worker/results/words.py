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
    sentences = [*_corrected(conclusion), f"AI triage: {_own_answer(conclusion)}".rstrip(". ")]
    for index, film in enumerate(conclusion.films):
        if film.analysed:
            result = score_words(conclusion, index)
        else:
            result = f"not analysed: {film.reason or 'no reason given'}".rstrip(". ")
        sentences.append(f"{film_number(conclusion, index).capitalize()}: {result}")
    return plain(". ".join(sentences) + ".")


def person_name(conclusion: StudyConclusion) -> str | None:
    """Name of the person who corrected the answer, if the copied character set holds it for certain."""
    correction = conclusion.correction
    return correction.person if correction and plain(correction.person) == correction.person else None


def _corrected(conclusion: StudyConclusion) -> list[str]:
    """The sentence about a person's correction, if there is one."""
    correction = conclusion.correction
    if correction is None:
        return []
    moment, name = correction.at.strftime("%Y-%m-%d %H:%M %z"), person_name(conclusion)
    who = f"a radiologist ({name})" if name else "a radiologist"
    return [f"Corrected by {who} on {moment}: {conclusion.decision.words}"]


def _own_answer(conclusion: StudyConclusion) -> str:
    """What the algorithm said."""
    if conclusion.correction is None:
        return f"{conclusion.decision.words}: {conclusion.reason}"
    return f"{conclusion.correction.answer.words}: {conclusion.correction.reason}"


def _told_apart(score: float, threshold: float) -> tuple[str, str]:
    """Two probabilities with two decimals, or as many as it takes (up to six) to tell them apart."""
    for decimals in range(2, 7):
        texts = f"{score:.{decimals}f}", f"{threshold:.{decimals}f}"
        if texts[0] != texts[1]:
            break
    return texts
