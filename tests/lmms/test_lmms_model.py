"""lmms-eval's requests under a method: answers, their order and their ends; what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import Decoding, answer

pytest.importorskip(
    "lmms_eval",
    reason="lmms-eval is not installed; see requirements-lmms.txt",
    exc_type=ImportError,
)
from lmms_eval.api.instance import Instance
from lmms_eval.models.registry_v2 import ModelRegistryV2
from loguru import logger

from rvelens.lmms.model import NAME, RvelensModel, cut, greedy

OPTIONS = {"max_new_tokens": 4, "do_sample": False, "until": ["\n\n"]}
METHODS = {"vanilla": {}, "rve": {"method.k": 1}, "vcd": {"method.alpha": 2}}


@pytest.fixture(scope="module")
def scenes():
    return load_benchmark("action-scenes", n=4).items


def made(**given_):
    return RvelensModel(**{"pretrained": "rvelens/tiny", "batch_size": "3", **given_})


@pytest.fixture(scope="module")
def vanilla():
    return made()


def ask(model, visuals, questions, options=None):
    """Requests to `generate_until` as lmms-eval makes them."""
    model.task_dict["task"] = {"test": list(visuals)}
    options = options or [OPTIONS] * len(questions)
    return model.generate_until(
        [
            Instance(
                request_type="generate_until",
                arguments=(question, kwargs, lambda doc: doc, n, "task", "test"),
                idx=0,
                metadata={"task": "task", "doc_id": n, "repeats": 1},
            )
            for n, (question, kwargs) in enumerate(zip(questions, options, strict=True))
        ]
    )


def test_the_entry_point_names_the_model():
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.get_model_class("rvelens") is RvelensModel


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_of_one_question_at_a_time(scenes, method):
    model = made(method=method, seed=7, **METHODS[method])
    pictures = [scenes[n].load() for n in (0, 1, 0, 2, 3, 2, 0)]
    questions = [scenes[n].text for n in (0, 1, 1, 2, 3, 0, 3)]
    for n, picture in enumerate(pictures):
        picture.info[NAME] = f"picture {n % 2}"
    names = [picture.info[NAME] for picture in pictures]
    options = [{**OPTIONS, "max_new_tokens": length} for length in (4, 4, 4, 4, 1, 1, 4)]
    said = ask(model, [[one] for one in pictures], questions, options)
    for n, one in enumerate(said):
        decoding = Decoding(max_new_tokens=options[n]["max_new_tokens"], seed=7)
        alone = answer(
            model.model, model.method, [pictures[n]], [questions[n]], [names[n]], decoding
        )
        assert one == alone[0][0]


def test_equal_pictures_share_a_key_and_others_do_not(vanilla):
    red, again = (Image.new("RGB", (8, 4), "red") for _ in range(2))
    others = [Image.new("RGB", (4, 8), "red"), Image.new("RGB", (8, 4), "blue")]
    vanilla.task_dict["task"] = {"test": [[one] for one in (red, again, *others)]}

    def key(n):
        metadata = {"task": "task", "doc_id": n, "repeats": 1}
        arguments = ("?", OPTIONS, lambda doc: doc, n, "task", "test")
        return vanilla._item(n, Instance("generate_until", arguments, 0, metadata)).image

    keys = [key(n) for n in range(4)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_an_answer_ends_where_the_task_says(vanilla, scenes):
    picture, question = scenes[0].load(), scenes[0].text
    (whole,) = ask(vanilla, [[picture]], [question])
    assert len(whole) > 1
    (ended,) = ask(vanilla, [[picture]], [question], [{**OPTIONS, "until": whole[1]}])
    assert ended == whole[0]


@given(st.text("ab\n", max_size=9), st.lists(st.text("ab\n", max_size=3), max_size=3))
def test_cut_is_the_shortest_text_before_an_ending(text, until):
    heads = [text.split(ending)[0] for ending in until if ending]
    assert cut(text, until) == min(heads, key=len, default=text)


@pytest.mark.parametrize(
    ("visuals", "shows"),
    [
        (None, "nothing"),
        ([], "nothing"),
        (["clip.mp4"], "str"),
        ([Image.new("RGB", (8, 8))] * 2, "Image, Image"),
    ],
)
def test_one_image_a_question(vanilla, visuals, shows):
    message = rf"question 0 of task shows {shows}: expected one image; leave the task out\."
    with pytest.raises(ValueError, match=message):
        ask(vanilla, [visuals], ["Is there a dog?"])


def test_a_question_that_cannot_be_asked_is_an_error_and_no_empty_answer(vanilla, scenes):
    questions = [scenes[0].text, "is there a <image> dog ?"]
    with pytest.raises(ValueError, match="a question holds '<image>'"):
        ask(vanilla, [[scenes[0].load()]] * 2, questions)


@pytest.mark.parametrize(
    "options", [{"do_sample": True}, {"temperature": 0.2}, {"num_beams": 3, "do_sample": False}]
)
def test_only_greedy(options):
    with pytest.raises(
        ValueError, match=r"expected greedy decoding, .* pass --gen_kwargs do_sample"
    ):
        greedy(options)


def test_what_means_greedy():
    assert greedy({}) == {"length": 1024, "until": []}
    quiet = {"temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}
    assert greedy({**quiet, "max_new_tokens": 8, "until": "\n"}) == {"length": 8, "until": ["\n"]}
    assert greedy({"temperature": 0.7, "do_sample": False, "until": None})["until"] == []


def test_an_option_that_is_left_out_is_told(vanilla, scenes):
    told = []
    sink = logger.add(told.append, format="{message}")
    ask(vanilla, [[scenes[0].load()]], ["Is it?"], [{**OPTIONS, "repetition_penalty": 2}])
    logger.remove(sink)
    assert [str(line).strip() for line in told] == [
        "rvelens does not know the options ['repetition_penalty']: left out"
    ]


def test_what_is_not_there_says_what_to_use(vanilla):
    with pytest.raises(
        NotImplementedError, match=r"expected a task with output_type generate_until"
    ):
        vanilla.loglikelihood([])
    with pytest.raises(NotImplementedError, match=r"several rounds .* use such a task\."):
        vanilla.generate_until_multi_round([])


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"method": "rev"}, r"unknown method 'rev': expected one of .* did you mean 'rve'\?"),
        ({"method": "rve", "method.alhpa": 1}, r"no parameter 'alhpa': .* did you mean 'alpha'\?"),
        ({"method.k": 1}, r"'vanilla' has no parameter 'k': expected none; leave it out\."),
    ],
)
def test_a_method_that_is_not_there(given_, message):
    with pytest.raises(ValueError, match=message):
        made(**given_)
