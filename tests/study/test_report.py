"""The report holds everything it shows, says what the tables say, and claims no more."""

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import results
from study import cli, report_figures
from study.figures import pictures
from study.kernel_drift import drift_words, kernel_drift
from study.page_table import MAX_ROWS, number, page_table
from study.plots import MAX_PANELS, barrier_figure, kernel_figure
from study.report import TABLES, page, write_report
from study.report_figures import figure_links, num_undrawn, shown_figures
from twophase.cone import Movement
from twophase.config import setting


class Page(HTMLParser):
    """Headings, links, images, and the cells of every table."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.images, self.tables, self.links = text, [], [], [], []
        self.words: list[str] = []
        self.ids = []
        self.is_in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.images += [dict(attrs)] if tag == "img" else []
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.is_in_cell = True

    def handle_endtag(self, tag):
        self.is_in_cell = self.is_in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.words.append(data)
        if self.is_in_cell:
            self.tables[-1][-1][-1] += data.strip()


@pytest.fixture
def tables(whole):
    return {name: whole.table(name) for name in TABLES}


def test_the_answer_comes_first_and_is_the_tables_own(whole, tables):
    read = Page((whole.path / "report.html").read_text(encoding="utf-8"))
    assert read.tags.index("table") < read.tags.index("img")
    body = read.tables[0][2:]
    primary = tables["transitions"].query("is_primary").set_index("model")
    assert [row[0] for row in body] == ["cnn", "mlp"]
    for row in body:
        found = primary.loc[row[0]]
        assert row[3] == found.verdict.replace("_", " ")
        assert row[1] == ("–" if math.isnan(found.transition_step) else f"{found.transition_step:.0f}")
        assert row[7] == "2"
    controls = tables["transitions"].query("perturbation == 'order' and indicator == 'test_barrier'").set_index("model")
    assert [row[6] for row in body] == [controls.loc[row[0]].verdict.replace("_", " ") for row in body]


def test_it_asks_nothing_of_a_network_and_shows_every_figure(whole):
    read = Page((whole.path / "report.html").read_text(encoding="utf-8"))
    assert all(link.startswith(("data:", "#")) for link in read.links), "something lies outside"
    assert "default-src 'none'" in read.text
    figures = {file.stem for file in (whole.path / "figures").glob("*.svg")}
    over_steps = {"barrier", "boundary", "disagreement", "divergence", "dose", "path"}
    assert figures == {*over_steps, "comparison", "kernel_distance", "learning_curves", "switch"}
    assert len(read.images) == len(figures)
    assert all(len(image["alt"]) > 20 and "nan" not in image["alt"] for image in read.images)
    (kernels,) = [image["alt"] for image in read.images if "full kernel" in image["alt"]]
    assert kernels.startswith("cnn, full kernel: ")
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))


def test_no_script_runs_but_its_own(whole):
    text = (whole.path / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text
    assert not re.search(r"\son[a-z]+=", text), "a handler in an attribute"


def test_a_setting_leads_to_its_own_panels(whole):
    text = (whole.path / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr><th scope="row"[^>]*><a href="#barrier-(\w+)">(\w+)</a></th>(.*)</tr>', text)
    keys = whole.table("trials").set_index("model")["setting_key"]
    assert [(key, label) for key, label, _ in rows] == [(keys[model].iloc[0], model) for model in ("cnn", "mlp")]
    for key, _, cells in rows:
        names = {"barrier", "dose", "disagreement", "learning_curves", "switch"}
        names |= {"kernel_distance"} if key == keys["cnn"].iloc[0] else set()
        assert {f"{name}-{key}" for name in names} <= set(re.findall(r'href="#([\w-]+)"', cells))
    left, right = (
        [
            float(part)
            for part in re.search(rf'id="barrier-{key}" style="left: ([\d.]+)%; .*?width: ([\d.]+)%', text).groups()
        ]
        for key, *_ in rows
    )
    assert 0 < left[0] < left[0] + left[1] <= right[0] < right[0] + right[1] < 100, "panels stand side by side"


def test_it_says_how_to_run_it_again(whole, tmp_path):
    import search_spaces

    read = Page((whole.path / "report.html").read_text(encoding="utf-8"))
    (written,) = [word for word in read.words if word.startswith("name: tiny")]
    (tmp_path / "space.yaml").write_text(written, encoding="utf-8")
    keys = {trial.key for trial in search_spaces.load(tmp_path / "space.yaml").trials()}
    assert keys == set(whole.table("trials").trial_key)


def test_it_says_what_an_estimate_leaves_out_and_which_settings_have_none(whole, tables):
    found = tables["transitions"]
    one = found.query("model == 'mlp'").assign(reason="seeds <disagree>")
    text = " ".join(Page(page(whole, {**tables, "transitions": one}, [])).words)
    assert "mlp: seeds <disagree>" in text
    assert "cnn has no row of the primary: no gaussian child of magnitude 0.01 was run" in text


def test_failures_are_told_and_what_users_write_is_escaped(whole, tables):
    trials = tables["trials"].copy()
    trials.loc[0, ["status", "error"]] = ["failed", "ValueError: <script>alert(1)</script> & more"]
    trials.loc[1, "status"] = "diverged"
    read = Page(page(whole, {**tables, "trials": trials}, []))
    assert read.tags.count("script") == 1
    causes = [row[4] for row in read.tables[0][1:]]
    assert causes == [
        "ValueError: <script>alert(1)</script> & more",
        "a loss or parameter of the reference is not finite",
    ]


@pytest.mark.parametrize("missing", ["cone", "switch", "trajectory", "transitions"])
def test_a_table_that_is_empty_leaves_its_part_out(whole, tables, missing):
    fewer = {**tables, missing: tables[missing].iloc[:0]}
    read = Page(page(whole, fewer, pictures(fewer)))
    text = " ".join(read.words)
    assert ("How the kernels move" in text) == (missing != "cone")
    assert ("No transition of the declared primary was measured yet" in text) == (missing == "transitions")
    # Each takes one with it; without transitions there is none to compare, and no primary to have a boundary.
    assert len(read.images) == 10 - (2 if missing == "transitions" else 1)


def test_the_command_writes_the_same_report_again(whole, capsys):
    before = (whole.path / "report.html").read_bytes()
    assert cli.main(["report", str(whole.path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (whole.path / "report.html").read_bytes() == before


def test_a_study_without_rows_has_a_report(tmp_path):
    from study.columns import setting_columns

    empty = results.create(tmp_path / "empty", study="empty", setting_columns=setting_columns())
    results.write_trials(empty)
    text = write_report(empty).read_text(encoding="utf-8")
    assert "0 of 0 trials done" in text


def test_a_name_is_only_a_name(tmp_path):
    from study.columns import setting_columns

    name = "<script>alert(1)</script>"
    odd = results.create(tmp_path / "odd", study=name, setting_columns=setting_columns())
    results.write_trials(odd)
    read = Page(write_report(odd).read_text(encoding="utf-8"))
    assert read.tags.count("script") == 1
    assert f"twophase report '{name}'" in "".join(read.words), "quoted for the shell"


def test_what_there_is_no_room_for_is_counted(tables, monkeypatch):
    rows = [[number(value)] for value in range(MAX_ROWS + 2)]
    long = page_table("long", "Long", ["value"], rows)
    assert (len(long.rows), long.num_left_out) == (MAX_ROWS, 2)
    assert [number(value).order_text for value in (1.5, math.inf, math.nan)] == ["1.5", "Infinity", "NaN"]
    assert page_table("none", "None", ["value"], []) is None
    only = tables["chaos"][tables["chaos"]["model"] == "mlp"]
    others = {name: tables[name].iloc[:0] for name in ("cone", "switch", "trajectory")}
    made = [picture for picture in pictures({**tables, "chaos": only, **others}) if picture.name == "disagreement"]
    shown = shown_figures(made, tables["trials"])
    keys = tables["trials"].drop_duplicates("model").set_index("model")["setting_key"]
    assert num_undrawn(shown, list(keys)) == 1
    assert figure_links(shown, list(keys)) == {
        keys["cnn"]: [],
        keys["mlp"]: [("disagreement", f"disagreement-{keys['mlp']}")],
    }
    monkeypatch.setattr(report_figures, "MOST_FIGURE_BYTES", 10)
    shown = shown_figures(made, tables["trials"])
    assert [figure.link for figure in next(iter(shown.values()))] == [""]


def cone_rows(between, point, seed=0, kernel="full", steps=None):
    steps = steps if steps is not None else [0, 10, 40, 100, 150, 200][: len(between)]
    keys = {"setting_key": point.key, "trial_key": f"{point.key}/{seed}", "seed": seed, **point.values()}
    return pd.DataFrame(
        [
            {**keys, "kernel": kernel, "step_i": a, "step_j": b, "kernel_distance": between[i][j]}
            for i, a in enumerate(steps)
            for j, b in enumerate(steps)
        ]
    )


POINT = setting({"num_steps": 200})
WIDE = 0.6 * (1 - np.eye(6))


def tight(late):
    between = WIDE.copy()
    between[2:, 2:] = late * (1 - np.eye(4))
    return between


@pytest.mark.parametrize(
    ("between", "word"),
    [
        (WIDE, "keeps moving"),
        (tight(0.4), "keeps moving"),
        (tight(0.2), "slows down, but no narrow cone"),
        (tight(0.05), "narrow from then on"),
        (np.full((6, 6), math.nan), "unknown"),
        (WIDE[:2, :2], "unknown"),
    ],
)
def test_words_follow_the_numbers(between, word):
    (row,) = kernel_drift(cone_rows(between, POINT)).to_dict("records")
    assert row["words"].startswith(word)
    assert row["num_seeds"] == 1
    if len(between) == 6 and not math.isnan(between[0][1]):
        assert row["split_step"] == 40, "the first checkpoint from a fifth of 200 steps on"
        assert row["early"] == pytest.approx(0.6)
        assert row["late"] == pytest.approx(between[2][3])


def test_no_word_claims_a_cone():
    for late in np.linspace(0, 1, 30):
        for to_end in np.linspace(0, 1, 30):
            words = drift_words(Movement(10, 0.5, late, to_end))
            assert "cone" not in words or "no narrow cone" in words


def test_angles_are_those_of_the_distance():
    assert "turns by 60°" in drift_words(Movement(10, 0.5, 0.4, 0.5))


@pytest.mark.parametrize(
    "cone",
    [
        cone_rows(WIDE, POINT),
        pd.concat([cone_rows(WIDE, POINT, seed) for seed in (0, 1)]),
        pd.concat([cone_rows(WIDE, POINT, kernel=kind) for kind in ("full", "trace")]),
        cone_rows(np.full((6, 6), math.nan), POINT),
        cone_rows([[0.0]], POINT),
        pd.concat([cone_rows(WIDE, POINT), cone_rows(WIDE[:3, :3], setting({"num_steps": 200, "lr": 0.2}))]),
    ],
    ids=["one", "two seeds", "two kinds", "unknown", "one checkpoint", "different steps"],
)
def test_a_kernel_figure_of_anything(cone, whole, tmp_path):
    transitions = whole.table("transitions").iloc[:0]
    figure = kernel_figure(cone, transitions, ["model", "lr"])
    assert isinstance(figure, Figure)
    panels = cone.drop_duplicates(["setting_key", "kernel"])
    assert sum(bool(axes.images) for axes in figure.axes) == len(panels)
    figure.savefig(tmp_path / "figure.png")


def test_kernel_figures_past_the_panels_are_counted(whole):
    points = [setting({"num_steps": 200, "lr": (i + 1) / 100}) for i in range(MAX_PANELS + 3)]
    cone = pd.concat([cone_rows(WIDE[:2, :2], point) for point in points])
    figure = kernel_figure(cone, whole.table("transitions").iloc[:0], ["lr"])
    assert figure.get_suptitle() == "3 more settings are not shown"
    two = pd.concat([cone, cone.assign(kernel="trace")])
    figure = kernel_figure(two, whole.table("transitions").iloc[:0], ["lr"])
    assert figure.get_suptitle().startswith(f"{MAX_PANELS + 6} more panels")


def test_a_legend_has_room_for_long_perturbations(tables):
    """Also beside one that has no magnitude to name."""
    long = "gaussian(exclude=norms.*|*.bias, include=hidden.*|head.*, momentum=true, norm=init)"
    chaos = tables["chaos"].replace({"perturbation": {"gaussian": long}})
    ulps = chaos[chaos["perturbation"] == long].query("magnitude == 0.01").assign(perturbation="ulp", magnitude=0.0)
    figure = barrier_figure(pd.concat([chaos, ulps]), tables["transitions"], ["model"])
    (legend,) = figure.legends
    labels = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert {f"{long} 0.01", f"{long} 0.001", "ulp", "control: other data order"} <= set(labels)
    figure.draw_without_rendering()
    assert legend.get_window_extent().width <= figure.bbox.width
