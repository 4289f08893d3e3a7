"""The verb of a question: by its place, and by a pipeline's tags."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvelens.pairs.find import NotMadeError, by_rules, by_spacy, find_verb, load_spacy
from rvelens.pairs.lexicon import readings


def found(question, finder=by_rules):
    return [(question[v.start : v.end], v.lemma, v.tag, v.takes) for v in finder(question)]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Does a man hold a bat in the image ?", "hold hold VB object"),
        ("Does a cat sit a chair in the image ?", "sit sit VB object"),
        ("Does an airplane fly a ground in the image ?", "fly fly VB object"),
        ("does the man HOLD a bat?", "HOLD hold VB object"),
        ("Doesn't a young man in a red shirt hold a bat?", "hold hold VB object"),
        ("Can the dog next to the bench catch a ball?", "catch catch VB object"),
        ("Does the woman look at the dog?", "look look VB at"),
        ("Do the people in the photo dance?", "dance dance VB nothing"),
        ("Does the man sit in the image?", "sit sit VB nothing"),
        ("Does the man sit on the bench in the image?", "sit sit VB on"),
        ("Is the man holding a bat?", "holding hold VBG object"),
        ("Is the man's dog holding a bat?", "holding hold VBG object"),
        ("Are two boys and a girl pointing at a kite?", "pointing point VBG at"),
        ("Is there a man riding a horse?", "riding ride VBG object"),
        ("The man is not holding a bat.", "holding hold VBG object"),
        ("What is the man holding?", "holding hold VBG object"),
        ("What is the man holding in the image?", "holding hold VBG object"),
        ("What is the man sitting on?", "sitting sit VBG on"),
        ("Which ball does the man kick?", "kick kick VB object"),
        ("Who is sitting?", "sitting sit VBG nothing"),
        ("Who holds the bat?", "holds hold VBZ object"),
        ("The man holds a bat.", "holds hold VBZ object"),
        ("The man ate an apple.", "ate eat VBD object"),
        ("A man holding a bat", "holding hold VBG object"),
        ("Is there a man that rides a horse?", "rides ride VBZ object"),
        ("Is the ball held by the man?", "held hold VBN object"),
        ("Is there a hat worn by the man?", "worn wear VBN object"),
        ("Has the man eaten the cake?", "eaten eat VBN object"),
        ("Doesn’t the man hold a bat?", "hold hold VB object"),
        ("Isn’t the man holding a bat?", "holding hold VBG object"),
        ("What’s the man holding?", "holding hold VBG object"),
        ("What's the man sitting on?", "sitting sit VBG on"),
        ("There's a man holding a bat.", "holding hold VBG object"),
        ("They hold a bat.", "hold hold VB object"),
        ("The young men hold a bat.", "hold hold VB object"),
        ("Boys hold bats", "hold hold VB object"),
        ("What is the man holding in his hand?", "holding hold VBG object"),
        ("Can you tell me if the man is holding a bat?", "holding hold VBG object"),
        ("Please tell me whether a man holds a bat.", "holds hold VBZ object"),
        ("Does the picture show a man holding a bat?", "holding hold VBG object"),
        ("Can you see a man riding a horse?", "riding ride VBG object"),
    ],
)
def test_forms_of_questions(question, expected):
    verb = find_verb(question)
    shown = (question[verb.start : verb.end], verb.lemma, verb.tag, verb.takes)
    assert " ".join(shown) == expected


@pytest.mark.parametrize(
    ("question", "verb"),
    [
        ("Does the watch hold the drink?", "hold"),
        ("Do the drinks stand on the table?", "stand"),
        ("Is the building standing near the dining table?", "standing"),
        ("Is the man by the tall building holding a drink?", "holding"),
        ("Is the man building a wall?", "building"),
        ("Is the man on the swing pushing the swing?", "pushing"),
        ("Does a woman drink water in the image?", "drink"),
        ("Does the man water the plants?", "water"),
    ],
)
def test_nouns_that_are_verbs_too(question, verb):
    assert found(question)[0][0] == verb


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Is there a drink on the table?", "no verb of the table"),
        ("Is the tall building behind the tree?", "no verb of the table"),
        ("Is there direct contact between the person and grass?", "no verb of the table"),
        ("Is the catch big?", "no verb of the table"),
        ("Does a man xqzt the ball and hold a bat?", "no verb of the table"),
        ("", "no verb of the table"),
        (
            "Does the soft drink stand on the table?",
            "either of 'drink' and 'stand' may be the verb",
        ),
        ("People hold signs.", "either of 'hold' and 'signs' may be the verb"),
        ("The sports drink holds water.", "either of 'drink' and 'holds' may be the verb"),
        ("Does the image show a dog?", "no verb of the table"),
        ("Does the glass contain water?", "'contain' is not an action of a body part"),
    ],
)
def test_nothing_is_guessed(question, reason):
    with pytest.raises(NotMadeError, match=reason):
        find_verb(question)


def test_several_verbs():
    question = "Is the man wearing a hat while standing on the grass and holding a bat?"
    assert [word for word, *_ in found(question)] == ["wearing", "standing", "holding"]
    assert find_verb(question).lemma == "wear"
    assert find_verb(question, number=3).lemma == "hold"
    with pytest.raises(NotMadeError, match="only 3 verbs: no verb number 4"):
        find_verb(question, number=4)


@settings(deadline=None)  # the first call reads lemminflect's dictionary
@given(st.text(max_size=30), st.text(max_size=30))
def test_offsets_hold_in_any_text(before, after):
    """Characters whose lower case has another length must not move what is found."""
    question = f"{before} Is the man HOLDING a bat {after}"
    for verb in by_rules(question):
        assert question[verb.start : verb.end].isascii()
        assert verb.lemma in {lemma for lemma, _ in readings(question[verb.start : verb.end])}


def test_a_letter_that_changes_its_length_before_the_verb():
    question = "İİ? Does a man hold a bat?"
    verb = find_verb(question)
    assert question[verb.start : verb.end] == "hold"


def test_long_texts_take_no_time():
    assert by_rules("Does the " + "man of " * 3000 + "x") == []
    assert by_rules("does a man " * 2000) == []


# -- a pipeline -------------------------------------------------------------------------------------


@pytest.fixture
def pipeline():
    """A blank English pipeline with a component that tags some words, as a trained tagger would."""
    spacy = pytest.importorskip("spacy")
    from spacy.language import Language

    tags = {
        "holds": "VBZ",
        "hold": "VBP",
        "riding": "VBG",
        "juggling": "VBG",
        "is": "VBZ",
        "see": "VB",
    }
    tags |= {"yodeling": "VBG"}

    @Language.component("rvelens_test_tags")
    def tag(doc):
        for token in doc:
            token.tag_ = tags.get(token.lower_, "NN")
        return doc

    nlp = spacy.blank("en")
    nlp.add_pipe("rvelens_test_tags")
    return nlp


def test_a_pipelines_tags_decide(pipeline):
    finder = by_spacy(pipeline)
    assert found("The men hold a bat.", finder) == [("hold", "hold", "VB", "object")]
    assert found("Riding, is it?", finder)[0][:3] == ("Riding", "ride", "VBG")
    assert found("Can you see him riding a horse?", finder) == [("riding", "ride", "VBG", "object")]
    assert found("the man watches", finder) == []
    with pytest.raises(NotMadeError, match="'yodeling' is not in the table of verbs"):
        find_verb("is he yodeling?", finder)


def test_a_pipeline_is_loaded_from_a_folder_that_is_there(pipeline, tmp_path):
    pipeline.to_disk(tmp_path / "nlp")
    loaded = load_spacy(str(tmp_path / "nlp"))
    assert found("He holds it", by_spacy(loaded)) == [("holds", "hold", "VBZ", "object")]


def test_no_pipeline_is_fetched(tmp_path):
    pytest.importorskip("spacy")
    with pytest.raises(ValueError, match="no spaCy pipeline 'en_none_xx' is installed: expected"):
        load_spacy("en_none_xx")
    with pytest.raises(ValueError, match="no spaCy pipeline"):
        load_spacy(str(tmp_path))


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setitem(sys.modules, "lemminflect", None)
    with pytest.raises(ValueError, match=r"needs the package spacy: .* pip install spacy"):
        load_spacy("en_core_web_sm")
    from rvelens.pairs.lexicon import inflect

    with pytest.raises(ValueError, match=r"need the package lemminflect: .*rvelens\[pairs\]"):
        inflect("hold", "VBG")
