"""`Report` and its comparison, against scikit-learn and SciPy."""

import html
import json
import re

import numpy as np
import pytest
from evaluations import K, classifier, data
from scipy import stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

import diffcls
from diffcls import InputError
from diffcls.cli import main
from diffcls.evaluation.comparison import mcnemar
from diffcls.intervals import wilson


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """(report, labels, results) of 400 images, two of them unreadable, with few trials: many answers are wrong."""
    x, labels = data(400)
    images = [np.zeros(9, np.float32) if i in (5, 399) else image for i, image in enumerate(x)]
    few = classifier(policy=diffcls.Staged((1, 6), (2, 1)), temperature=0.05)
    out = tmp_path_factory.mktemp("many")
    report = diffcls.evaluate(few, list(zip(images, labels, strict=True)), out=out, part_size=64, audit=0.5)
    good = np.array([i for i in range(400) if i not in (5, 399)])
    return report, labels[good], few(x[good]), good, out


def test_accuracy_is_scikit_learns(many):
    report, labels, results, good, _ = many
    assert 0.4 < report.accuracy < 0.99
    assert report.accuracy == metrics.accuracy_score(labels, results.index)
    assert report.mean_per_class_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(labels, results.index), abs=1e-15
    )
    assert np.array_equal(report.confusion, metrics.confusion_matrix(labels, results.index, labels=range(K)))
    recall = metrics.recall_score(labels, results.index, average=None)
    assert np.allclose([row["accuracy"] for row in report.per_class()], recall, rtol=1e-15)
    assert [row["n"] for row in report.per_class()] == np.bincount(labels).tolist()


def test_top_k_is_that_of_the_ranking(many):
    report, labels, results, good, _ = many
    ranks = [result.ranking().tolist().index(label) for result, label in zip(results, labels, strict=True)]
    assert report.rank[good].tolist() == ranks and (report.rank[[5, 399]] == -1).all()
    for k in (1, 2, 3):
        assert report.top_k_accuracy(k) == np.mean(np.array(ranks) < k)
    clear = np.array([result.ranking()[0] == np.argmax(result.probabilities) for result in results])
    theirs = metrics.top_k_accuracy_score(labels[clear], results.probabilities[clear], k=2, labels=range(K))
    assert np.mean(np.array(ranks)[clear] < 2) == pytest.approx(theirs, abs=1e-15)


def test_intervals(many):
    report, labels, results, _, _ = many
    n, right = len(labels), int((results.index == labels).sum())
    low, high = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert report.accuracy_interval == pytest.approx((low, high), rel=1e-9)
    for row in report.per_class():
        assert (row["low"], row["high"]) == pytest.approx([float(end) for end in wilson(row["right"], row["n"])])
    per_class = [stats.binom(row["n"], row["accuracy"]) for row in report.per_class()]
    spread = np.sqrt(sum(c.var() / row["n"] ** 2 for c, row in zip(per_class, report.per_class(), strict=True))) / K
    low, high = report.mean_per_class_interval()
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert low < report.mean_per_class_accuracy < high


def test_reliability_is_scikit_learns_and_our_own(many):
    report, labels, results, _, _ = many
    curve = report.reliability(n_bins=8)
    ours = diffcls.reliability_curve(list(results), labels, n_bins=8)
    assert curve.ece == ours.ece and curve.ece_interval == ours.ece_interval
    confidence = results.probabilities[np.arange(len(labels)), results.index]
    share, mean = calibration_curve(results.index == labels, confidence, n_bins=8)
    full = curve.count > 0
    assert np.allclose(curve.accuracy[full], share) and np.allclose(curve.confidence[full], mean)


def test_evaluations_status_and_errors(many):
    report, _, results, _, _ = many
    spent = results.n_evals
    told = report.evaluations
    assert told["mean"] == spent.mean() and told["total"] == spent.sum() and told["max"] == spent.max()
    assert told["median"] == np.median(spent) and told["p95"] == np.percentile(spent, 95)
    assert report.status_counts == {status: results.status.count(status) for status in set(results.status)}
    assert [id for id, _ in report.errors] == ["5", "399"]
    assert 120 < report.audit.n_images < 280


def test_loaded_is_the_same(many):
    report, *_, out = many
    again = diffcls.Report.load(out)
    assert again.to_dict() == report.to_dict()
    assert repr(again) == repr(report)
    assert repr(report).startswith("Report(400 images, 3 classes, accuracy 0.")


def test_to_dict_is_json(many):
    told = json.loads(json.dumps(many[0].to_dict(), allow_nan=False))
    assert told["n_images"] == 400 and told["n_errors"] == 2 and told["run"]["fingerprint"]["seed"] == "0"
    assert told["audit"]["n_images"] == many[0].audit.n_images


def test_markdown_has_the_figures(many):
    report, labels, results, _, _ = many
    text = report.to_markdown()
    low, high = report.accuracy_interval
    assert f"| accuracy | {100 * report.accuracy:.2f} % | {100 * low:.2f} to {100 * high:.2f} |" in text
    assert f"| mean per-class accuracy | {100 * report.mean_per_class_accuracy:.2f} % |" in text
    assert "| 5 | image 5 gives x_start of shape (9,), must have (4,) |" in text
    confused = report.confusion.copy()
    np.fill_diagonal(confused, 0)
    i, j = np.unravel_index(confused.argmax(), confused.shape)
    assert f"| {report.classes[i]} | {report.classes[j]} | {confused[i, j]} |" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(widths) <= {4, 5, 3}


def test_names_are_escaped(tmp_path):
    from evaluations import MODEL

    names = ["a|b", "<script>alert(1)</script>", "c\\d"]
    odd = diffcls.Classifier(MODEL.denoiser(class_names=names, name="<b>"), policy=diffcls.Fixed(2))
    x, labels = data(30)
    report = diffcls.evaluate(odd, (x, labels), out=tmp_path)
    page = report.to_html()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<b>" not in page
    assert page.startswith("<!doctype html>") and page.count("<table>") == page.count("</table>") > 1
    assert "<script>" not in report._repr_html_()
    rows = [line for line in report.to_markdown().splitlines() if line.startswith("| a\\|b")]
    assert rows and "<script>" not in report.to_markdown()


def test_markdown_reads_back_as_the_names(tmp_path):
    from evaluations import MODEL

    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    names = ["*a* **b** _c_ d_e", "[x](http://y) `z` ~~w~~", "&amp; a\\|b $m$ <i>"]
    odd = diffcls.Classifier(MODEL.denoiser(class_names=names), policy=diffcls.Fixed(2))
    text = diffcls.evaluate(odd, data(30), out=tmp_path).to_markdown()
    page = markdown.render(text)
    cells = [html.unescape(cell) for cell in re.findall("<td>(.*?)</td>", page)]
    assert set(names) <= set(cells)
    assert "d_e" in text  # what needs no mark has none


def test_a_damaged_table_is_made_anew_by_the_command(tmp_path, capsys):
    diffcls.evaluate(classifier(), data(30), out=tmp_path)
    table, whole = tmp_path / "results.parquet", (tmp_path / "results.parquet").read_bytes()
    table.write_bytes(whole[:200])
    assert main(["report", str(tmp_path)]) == 0
    assert table.read_bytes() == whole and "| images | 30 |" in capsys.readouterr().out


def test_labels_without_answers_are_not_called_missing(tmp_path):
    report = diffcls.evaluate(classifier(), [(np.zeros(9, np.float32), "ant")], out=tmp_path)
    assert "| labels | of no image that has an answer |" in report.to_markdown()


def test_plot(many, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    report = many[0]
    display = report.plot()
    display.figure_.savefig(tmp_path / "report.png")
    image = display.axes_[0].images[0].get_array()
    assert np.allclose(image, report.confusion / report.confusion.sum(axis=1, keepdims=True))
    assert f"{report.accuracy:.4f}" in display.axes_[0].get_title()
    heights = [patch.get_height() for patch in display.axes_[2].patches]
    assert sum(heights) == 398
    with pytest.raises(InputError, match="axes has 1 axes, must have three"):
        diffcls.plotting.ReportDisplay(report).plot([display.axes_[0]])


def test_plot_of_names_with_dollars(tmp_path):
    from evaluations import MODEL

    pytest.importorskip("matplotlib").use("Agg")
    odd = diffcls.Classifier(MODEL.denoiser(class_names=["$\\foo$", "$5", "c"]), policy=diffcls.Fixed(2))
    figure = diffcls.evaluate(odd, data(9), out=tmp_path).plot().figure_
    figure.savefig(tmp_path / "report.png")  # matplotlib would read mathematics, which the first is not


def test_plot_without_labels(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    display = diffcls.evaluate(classifier(), data(9)[0], out=tmp_path).plot()
    assert [ax.texts[0].get_text() for ax in display.axes_[:2]] == ["no labels"] * 2
    assert sum(patch.get_height() for patch in display.axes_[2].patches) == 9


# ---- comparison ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (3, 9), (30, 12), (500, 430), (0, 2000)])
def test_mcnemar_is_the_binomial_test(pair):
    expected = stats.binomtest(max(pair), sum(pair), 0.5).pvalue if sum(pair) else 1.0
    assert mcnemar(*pair) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_comparison(many, tmp_path):
    report, labels, results, good, _ = many
    x, all_labels = data(400)
    other = diffcls.evaluate(classifier(), (x, all_labels), out=tmp_path)
    comparison = report.compare(other)
    a, b = results.index == labels, classifier()(x[good]).index == labels
    assert (comparison.both, comparison.only_first) == ((a & b).sum(), (a & ~b).sum())
    assert (comparison.only_second, comparison.neither) == ((b & ~a).sum(), (~a & ~b).sum())
    assert comparison.n_images == 398 and comparison.n_left_out == 2
    assert comparison.difference == pytest.approx(a.mean() - b.mean())
    table = stats.binomtest(int(min((a & ~b).sum(), (b & ~a).sum())), int((a ^ b).sum()), 0.5)
    assert comparison.p_value == pytest.approx(table.pvalue)
    theirs = stats.bootstrap((a.astype(float) - b,), np.mean, method="percentile", n_resamples=9999, rng=0)
    assert comparison.interval == pytest.approx(theirs.confidence_interval, abs=0.004)
    assert comparison.agreement == np.mean(results.index == classifier()(x[good]).index)
    assert comparison.evaluations_factor == pytest.approx(classifier()(x[good]).n_evals.sum() / results.n_evals.sum())
    back = other.compare(report)
    assert back.difference == -comparison.difference and back.p_value == comparison.p_value
    assert re.match(r"\d+\.\d\d % against \d+\.\d\d % of 398 images: [+-]\d+\.\d\d points", str(comparison))
    assert json.dumps(comparison.to_dict())


def test_images_are_paired_by_id_whatever_the_order(tmp_path):
    x, labels = data(50)
    named = [(f"n{i}", image, label) for i, (image, label) in enumerate(zip(x, labels, strict=True))]
    straight = diffcls.evaluate(classifier(), named, out=tmp_path / "a")
    turned = diffcls.evaluate(classifier(), named[::-1][:40], out=tmp_path / "b")
    comparison = straight.compare(turned)
    assert comparison.agreement == 1.0 and comparison.n_images == 40 and comparison.n_left_out == 10


def test_reports_that_have_nothing_to_compare(tmp_path):
    x, labels = data(6)
    report = diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "a")
    others = [(f"n{i}", image, label) for i, (image, label) in enumerate(zip(x, labels, strict=True))]
    with pytest.raises(InputError, match="no image in common"):
        report.compare(diffcls.evaluate(classifier(), others, out=tmp_path / "b"))
    with pytest.raises(InputError, match="no image in common"):
        report.compare(diffcls.evaluate(classifier(), x, out=tmp_path / "c"))
    turned = (labels + 1) % K
    with pytest.raises(InputError, match="image '0' has label .* in one report"):
        report.compare(diffcls.evaluate(classifier(), (x, turned), out=tmp_path / "d"))
    with pytest.raises(diffcls.DTypeError, match="second is 'other', must be of type Report"):
        report.compare("other")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_commands(tmp_path, capsys):
    from diffcls.models.demo_pictures import load

    pictures, labels = load()
    np.savez(tmp_path / "set.npz", pixels=pictures[:12], truth=labels[:12])
    base = [
        "evaluate",
        str(tmp_path / "set.npz"),
        "--image-column",
        "pixels",
        "--label-column",
        "truth",
        "--labels",
        "index",
    ]
    base += ["--quiet", "--policy", "fixed:4"]
    assert main([*base, "--out", str(tmp_path / "one"), "--json", "--html", str(tmp_path / "page.html")]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = diffcls.Classifier(policy=diffcls.Fixed(4))(pictures[:12])
    assert told["accuracy"] == np.mean(expected.index == labels[:12])
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    for shard in ("1/2", "0/2"):
        assert main([*base, "--out", str(tmp_path / "two"), "--shard", shard]) == 0
    assert (tmp_path / "one" / "results.parquet").read_bytes() == (tmp_path / "two" / "results.parquet").read_bytes()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "two"), "--compare", str(tmp_path / "one")]) == 0
    assert "of 12 images: +0.00 points" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "one")]) == 0
    assert "| accuracy |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "full"], "policy is 'full'"),
        (["--shard", "2"], "shard is '2', must be I/N"),
        (["--shard", "2/2"], "shard is .2/2., must be I/N"),
        (["--model", "none"], "there is no model 'none'"),
        (["--label-column", "truth"], "and no truth"),
        (["--prompts", "zebra"], "zebra"),
    ],
)
def test_commands_mistakes_are_one_line(tmp_path, capsys, words, said):

    np.savez(tmp_path / "set.npz", images=np.zeros((1, 28, 28), np.uint8))
    assert main(["evaluate", str(tmp_path / "set.npz"), "--out", str(tmp_path / "out"), *words]) == 1
    told = capsys.readouterr().err
    assert re.search(said, told) and told.count("\n") == 1


def test_report_of_shards_that_are_not_done(tmp_path, capsys):

    diffcls.evaluate(classifier(), data(9), out=tmp_path, shard=(0, 2))
    assert main(["report", str(tmp_path)]) == 1
    assert "of 2 shards in" in capsys.readouterr().err
