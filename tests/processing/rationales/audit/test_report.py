"""The audit of rationales, on small files, on the sample posts and on Twitter-2015 and Twitter-2017."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from processing import PostError
from processing.rationales import audit_rationales, read_rationales
from processing.rationales.audit.posts import KINDS
from processing.rationales.audit.rates import holm, interval, jumps
from processing.rationales.audit.signs import (
    Examples,
    entity_list,
    guess_language,
    has_polarity_stem,
    is_refusal,
    is_unfinished,
    named_polarities,
    names,
    states_label,
)

from .planting import STYLES, plant


ROOT = Path(__file__).parents[4]
SAMPLES = ROOT / "examples" / "posts"
DATA = Path(os.environ.get("LRSA_TWITTER_DATA", ROOT.parent / "shared" / "data"))
SETS = ("twitter2015", "twitter2017")


def suspicions(report, kind: str) -> list[str]:
    return [v["text"] for v in report["verdicts"] if v["kind"] == kind and v["level"] == "leak suspected"]


def texts(report, level: str, kind: str = "text_rationale") -> str:
    return " ".join(v["text"] for v in report["verdicts"] if v["kind"] == kind and v["level"] == level)


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- what one rationale shows


@pytest.mark.parametrize(
    ("rationale", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, I cannot do this", True),
        ("Sorry, no picture was found.", True),
        ("As an AI language model, I have no opinions.", True),
        ("The post is short. I cannot see the image, so this is a guess.", True),
        ("I am unable to view the picture.", True),
        ("No image was provided.", True),
        ("The writer says: I'm sorry for your loss.", False),
        ("The fans cannot see the stage, so they complain.", False),
        ("A sorry sight: the team lost again.", False),
        ("An AI firm opens in Harrow Vale.", False),
    ],
)
def test_refusals(rationale, expected):
    assert is_refusal(rationale) == expected


@pytest.mark.parametrize(
    ("rationale", "expected"),
    [
        ("It ends here.", False),
        ('He says "no more!"', False),
        ("Is it (perhaps?)  ", False),
        ("終わりです。", False),
        ("It goes on and", True),
        ("One, two,", True),
        ("It ends at 3.5", True),
    ],
)
def test_cuts(rationale, expected):
    assert is_unfinished(rationale) == expected


@pytest.mark.parametrize(
    ("rationale", "named", "derived", "stated"),
    [
        ("The writer is happy.", set(), False, False),
        ("A POSITIVE mood and negative space.", {"positive", "negative"}, True, False),
        ("It is seen positively; the neutrality of the rest is plain.", set(), True, False),
        ("Negativity and positives.", set(), True, False),
        ("A neutralist, and positivism.", set(), True, False),
        ("Seropositive is one word, non-negative two.", {"negative"}, True, False),
        ("The mood (positive) is high.", {"positive"}, True, True),
        ("The sentiment towards the hall is clearly negative, it says.", {"negative"}, True, True),
        ("Sentiment: neutral, as news are.", {"neutral"}, True, True),
        ("It is labelled as negative by many.", {"negative"}, True, True),
        ("They won. positive", {"positive"}, True, True),
        ("Label = POS, it seems.", set(), False, True),
        ("A record label and the neck of a bottle.", set(), False, False),
        ("His pos was good.", set(), False, False),
    ],
)
def test_polarities(rationale, named, derived, stated):
    assert named_polarities(rationale) == named
    assert has_polarity_stem(rationale) == derived
    assert states_label(rationale) == stated


@pytest.mark.parametrize(
    ("text", "aspect", "expected"),
    [
        ("It is about Riverbend  Hall.", "riverbend hall", True),
        ("It is about Riverbend\nHall.", "Riverbend Hall", True),
        ("RiverbendHall opens.", "Riverbend Hall", False),
        ("The Halls of Riverbend", "Hall", False),
        ("#Hall, (Hall)", "Hall", True),
        ("C++ and a.b", "C++", True),
        ("axb", "a.b", False),
    ],
)
def test_aspects_are_named(text, aspect, expected):
    assert names(text, aspect) == expected


def test_entity_list():
    assert entity_list("Named entities: 1. Marta (person)\nReasoning: Marta sings at Riverbend Hall.") == (
        "Named entities: 1. Marta (person)\n"
    )
    assert entity_list("Marta sings at Riverbend Hall.") == ""


@pytest.mark.parametrize(
    ("rationale", "language"),
    [
        ("The writer is glad that the show is on in the hall.", "English"),
        ("Der Beitrag ist ein Lob für die Sängerin und nicht ironisch.", "German"),
        ("Le message est une plainte sur les trains de la ville.", "French"),
        ("El mensaje es una queja por los trenes de la ciudad que no llegan.", "Spanish"),
        ("这条帖子表扬了歌手。", "CJK"),
        ("Автор доволен концертом.", "Cyrillic"),
        ("كاتب المنشور سعيد", "Arabic"),
        ("12 34 !", "unknown"),
        ("", "unknown"),
    ],
)
def test_languages(rationale, language):
    assert guess_language(rationale) == language


def test_repeated_examples():
    example = "A regular customer complains about getting a cold latte for the third time in a week."
    examples = Examples([example, "Short one."])
    assert examples.repeats(example) and examples.repeats(example.upper().replace(".", ""))
    assert examples.repeats(example.replace("in a week", "in a month")) and examples.repeats("short one")
    assert not examples.repeats("A regular customer praises the cold brew that was served on the third day.")
    assert not examples.repeats("") and not Examples([]).repeats(example)


# --- shares and tests


def test_wilson_interval_by_hand():
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, total, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
                                    (1, 29, 0.0061, 0.1718)]:  # fmt: skip
        assert interval(count, total) == pytest.approx((low, high), abs=5e-5)


def test_holm_as_by_another_implementation():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R's p.adjust


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_by_its_definition(ps):
    ranked = sorted(ps)
    expected = [
        min(1.0, max((len(ps) - rank) * ranked[rank] for rank in range(ranked.index(p) + 1))) if p < 1 else 1.0
        for p in ps
    ]
    adjusted = holm(ps)
    assert all(a >= p for a, p in zip(adjusted, ps))
    # Of equal values the last in rank may be meant: both are raised to the same.
    assert adjusted == pytest.approx(
        [max(e, adjusted[ps.index(p)]) if ps.count(p) > 1 else e for e, p in zip(expected, ps)]
    )


def test_jumps_are_found_and_seldom_imagined():
    counts = {"train": (10, 2000), "validation": (40, 600), "test": (3, 600)}
    ps = jumps(counts)
    assert ps["validation"] < 1e-9 and min(ps["train"], ps["test"]) > 0.9
    assert jumps({"only": (3, 4)}) == {} and jumps({"a": (3, 4), "b": (0, 0)}) == {}

    chance = random.Random(1)
    alarms = 0
    for _ in range(300):
        shares = [chance.choice([0.005, 0.05, 0.5, 0.8]) for _ in range(6)]
        family = [
            p
            for share in shares
            for p in jumps(
                {name: (sum(chance.random() < share for _ in range(n)), n) for name, n in zip("abc", (200, 70, 70))}
            ).values()
        ]
        alarms += min(holm(family)) < 0.01
    assert alarms <= 9  # 3 are expected; more than 9 have a chance of 1 in 1,000


# --- small files


@pytest.fixture
def small(tmp_path) -> Path:
    """Four posts to train on, each with another fault, and one to test on."""
    aspect = {"start": 0, "end": 5, "polarity": "positive"}
    finish = {"text_rationale": {"finish_reason": "length"}, "image_rationale": None}
    train = [
        {"text": "Marta sings", "aspects": [aspect], "text_rationale": "Marta is liked: positive."},
        {"words": ["Marta", "rests"], "aspects": [], "text_rationale": "The same"},
        {"text": "Marta runs", "aspects": None, "text_rationale": "the  same"},
        {"text": "Marta hops", "text_rationale": "I'm sorry.", "rationale_provenance": finish, "more": 1},
        {"text": "Marta eats", "text_rationale": " "},
        {"text": "Marta eats"},
    ]
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "test.jsonl", [{"text": "Marta", "aspects": [aspect], "text_rationale": "Wir sind der und die."}])
    return tmp_path


def test_figures_of_a_small_folder(small):
    report = audit_rationales(read_rationales(small), ["i'm SORRY"], budget=3)
    assert report["posts"] == {"train": 6, "test": 1}
    train, test = (report["kinds"]["text_rationale"]["splits"][split] for split in ("train", "test"))
    counted = ("posts", "rationales", "empty", "refusals", "truncated", "duplicated", "like_an_example")
    assert [train[name] for name in counted] == [6, 4, 1, 1, 3, 2, 1]
    assert [test[name] for name in counted] == [1, 1, 0, 0, 0, 0, 0]
    assert train["coverage"] == 4 / 6 and train["words"]["mean"] == (4 + 2 + 2 + 2) / 4
    assert train["beyond_budget"]["count"] == 1 and train["words"]["quantiles"]["1.0"] == 4
    assert test["languages"] == {"German": 1}
    assert (train["aspects"]["count"], train["aspects"]["of"]) == (1, 1) and test["aspects"]["rate"] == 0
    rates = {sign: (rate["count"], rate["of"]) for sign, rate in train["rates"].items()}
    assert rates == {
        "polarity_word": (1, 4),
        "polarity_stem": (1, 4),
        "gold_polarity": (1, 1),
        "label_statement": (1, 4),
        "gold_aspects": (1, 1),
        "gold_aspects_listed": (0, 0),
    }
    told = report["kinds"]["text_rationale"]["agreement"]
    assert (told["train"]["right"], told["train"]["rationales"], told["test"]["rationales"]) == (1, 1, 0)
    look = texts(report, "look")
    for part in ("2 of 7 posts have none", "1 of 5 hold a refusal", "3 of 5 are cut off", "1 of 5 repeat an example",
                 "2 of 5 stand at posts with different texts", "seem to be"):  # fmt: skip
        assert part in look
    assert "too few posts" in texts(report, "not checked")
    assert [v for v in report["verdicts"] if v["kind"] == "image_rationale"] == [
        {"level": "look", "kind": "image_rationale", "text": "no post has one."}
    ]
    json.dumps(report, allow_nan=False)


def test_a_finish_reason_counts_more_than_the_last_character(tmp_path):
    rows = [
        {"text": "a", "text_rationale": text, "rationale_provenance": {"text_rationale": {"finish_reason": reason}}}
        for text, reason in [("It ends.", "length"), ("It ends.", "stop"), ("It goes on", "stop")]
    ]
    report = audit_rationales(read_rationales(write(tmp_path / "posts.jsonl", rows)))
    assert report["kinds"]["text_rationale"]["splits"]["posts"]["truncated"] == 1


def test_spans_without_polarity_say_nothing_of_polarities(tmp_path):
    """Of a blind test split the spans are known alone: that no rationale names its polarity there is no jump."""
    for split, polarity, number in (("train", "positive", 300), ("test", None, 100)):
        aspect = {"start": 0, "end": 5, "polarity": polarity}
        says = ("It is positive.", "It is a walk.")
        rows = [
            {"text": f"Marta walks {i}", "aspects": [aspect], "text_rationale": f"{i}: {says[i % 6 > 0]}"}
            for i in range(number)
        ]
        write(tmp_path / f"{split}.jsonl", rows)
    report = audit_rationales(read_rationales(tmp_path))
    rates = {
        split: told["rates"]["gold_polarity"]["of"]
        for split, told in report["kinds"]["text_rationale"]["splits"].items()
    }
    assert rates == {"train": 300, "test": 0}
    assert "a rate jumps" not in texts(report, "leak suspected")


def test_posts_without_labels_and_without_splits(tmp_path):
    rows = [{"text": f"post {i}", "text_rationale": f"It is number {i} of the posts."} for i in range(40)]
    report = audit_rationales(read_rationales(write(tmp_path / "posts.jsonl", rows)))
    assert report["posts"] == {"posts": 40} and report["tests"] == []
    unchecked = texts(report, "not checked")
    assert "no splits to compare" in unchecked and "no post with a rationale has any" in unchecked
    assert (
        texts(report, "fine") == "every post has one; none is a refusal, cut off, given twice, or in another language."
    )


def test_what_datasets_saved_reads_as_the_file(tmp_path, small):
    rows = [json.loads(line) for line in (SAMPLES / "test.jsonl").read_text().splitlines()]
    splits = DatasetDict({"test": Dataset.from_list(rows), "train": Dataset.from_list(rows[:5])})
    splits.save_to_disk(tmp_path / "saved")
    read = read_rationales(tmp_path / "saved")
    assert list(read) == ["test", "train"] and len(read["train"]) == 5
    assert read["test"].equals(read_rationales(SAMPLES / "test.jsonl")["test"])
    Dataset.from_list(rows).save_to_disk(tmp_path / "one")
    assert read_rationales(tmp_path / "one")["one"].equals(read["test"])


def test_bad_input(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    cases = {
        tmp_path / "none": "no such file or folder",
        tmp_path / "empty": "holds none of train.jsonl",
        tmp_path / "saved": "can't be read as a data set",
        write(tmp_path / "blank.jsonl", []): "holds no posts",
        write(tmp_path / "row.jsonl", [{"text": "a"}, 3]): "row.jsonl:2: row: a JSON object is expected",
        write(
            tmp_path / "kind.jsonl", [{"text": "a", "text_rationale": ["b"]}]
        ): "kind.jsonl:1: text_rationale: a string",
    }
    for path, message in cases.items():
        with pytest.raises(PostError) as error:
            read_rationales(path)
        assert message in str(error.value) and str(error.value).startswith(str(path))


@pytest.mark.parametrize("provenance", [3, [], {"text_rationale": 3}, {"text_rationale": {"finish_reason": None}}])
def test_foreign_provenance_is_passed_over(tmp_path, provenance):
    row = {"text": "a", "text_rationale": "It ends.", "rationale_provenance": provenance}
    report = audit_rationales(read_rationales(write(tmp_path / "posts.jsonl", [row])))
    assert report["kinds"]["text_rationale"]["splits"]["posts"]["truncated"] == 0


def test_the_audit_imports_no_torch():
    modules = "processing.rationales.audit.report, processing.rationales.audit.plots"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


# --- the sample posts: written by a model that saw no labels, and never with a polarity word


def test_sample_posts_raise_no_alarm():
    report = audit_rationales(read_rationales(SAMPLES))
    for kind in KINDS:
        assert suspicions(report, kind) == []
        for split, count in (("train", 300), ("validation", 60), ("test", 50)):
            figures = report["kinds"][kind]["splits"][split]
            assert (figures["rationales"], figures["duplicated"], figures["truncated"]) == (count, 0, 0)
            assert figures["rates"]["polarity_stem"]["count"] == 0 and set(figures["languages"]) == {"English"}
    assert report["kinds"]["text_rationale"]["splits"]["test"]["rates"]["gold_aspects"]["rate"] == 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_planted_in_sample_posts(style, kind):
    """They are few: 5 % of the rationales of a split are 2 to 15."""
    planted = plant(read_rationales(SAMPLES), kind, style, "train", 0.05)
    report = audit_rationales(planted)
    assert report["kinds"][kind]["splits"]["train"]["rates"]["gold_polarity"]["count"] == 15
    other = next(other for other in KINDS if other != kind)
    assert suspicions(report, other) == []
    found = suspicions(audit_rationales(plant(read_rationales(SAMPLES), kind, style, "all", 0.2)), kind)
    assert any("they know gold polarities" in text for text in found)


# --- Twitter-2015 and Twitter-2017


@pytest.fixture(scope="module", params=SETS)
def twitter(request):
    if not (DATA / request.param).is_dir():
        pytest.skip(f"needs {request.param}: name its folder's parent by LRSA_TWITTER_DATA")
    return request.param, read_rationales(DATA / request.param)


@pytest.fixture(scope="module")
def twitter_report(twitter):
    return twitter[0], audit_rationales(twitter[1])


def test_twitter_as_published(twitter_report):
    """Its README: share of posts whose gold aspects all stand in ChatGPT's list, polarities named, words."""
    name, report = twitter_report
    listed = {"twitter2015": (77, 78, 80), "twitter2017": (83, 83, 82)}[name]
    image_words = {"twitter2015": (62, 62, 62), "twitter2017": (126, 132, 126)}[name]
    texts_, images = (report["kinds"][kind]["splits"] for kind in ("text_rationale", "image_rationale"))
    for split, share, words in zip(("train", "validation", "test"), listed, image_words):
        assert 100 * texts_[split]["rates"]["gold_aspects_listed"]["rate"] == pytest.approx(share, abs=2)
        assert texts_[split]["coverage"] == images[split]["coverage"] == 1
        assert images[split]["words"]["mean"] == pytest.approx(words, abs=1)
        assert 63 <= texts_[split]["words"]["mean"] < 66
    words = sum(split["rates"]["polarity_word"]["count"] for split in texts_.values())
    assert words == {"twitter2015": 27, "twitter2017": 27}[name]  # 54 in both
    assert sum(split["rates"]["polarity_stem"]["count"] for split in texts_.values()) == words + 2


def test_twitter_raises_no_alarm(twitter_report):
    report = twitter_report[1]
    assert [suspicions(report, kind) for kind in KINDS] == [[], []]
    for kind in KINDS:
        fine = texts(report, "fine", kind)
        assert "no sign of a rate that jumps" in fine and "no sign of a leak in a bag of words" in fine


def planted_twitter(twitter, style, where, kind, seed):
    other = next(other for other in KINDS if other != kind)
    splits = {split: posts.assign(**{other: None}) for split, posts in twitter[1].items()}
    return audit_rationales(plant(splits, kind, style, where, 0.05, seed))


def check_planted(report, where, kind):
    found = " ".join(suspicions(report, kind))
    jumped = {test["split"] for test in report["tests"] if test["test"] == "jump" and test["p_holm"] < 0.01}
    if where == "all":
        assert "they know gold polarities (all splits):" in found
    else:
        assert jumped == {where} and f"a rate jumps on {where}" in found


@pytest.mark.parametrize(("style", "where"), [("inside", "test"), ("appended", "all")])
def test_labels_planted_in_twitter(twitter, style, where):
    check_planted(planted_twitter(twitter, style, where, "text_rationale", 7), where, "text_rationale")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["train", "validation", "test", "all"])
@pytest.mark.parametrize("style", STYLES)
def test_labels_planted_in_twitter_everywhere(twitter, style, where, kind):
    if (twitter[0], kind, style, where) == ("twitter2017", "image_rationale", "inside", "all"):
        pytest.skip("6.6 % of these rationales hold such words of their own, among which 5 % do not show; docs say so")
    check_planted(planted_twitter(twitter, style, where, kind, 1), where, kind)
