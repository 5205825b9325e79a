"""Tables say what the records say: errors with their spread, differences in bold, costs, and what is missing."""

from dataclasses import replace

from recipes.evidence.tables import HEADERS, arms_table, domains_table, robustness_table, what_was_run

from .invented import experiment, record, trained


def rows(table):
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert cells[0] == HEADERS
    return {row[0]: dict(zip(HEADERS, row, strict=True)) for row in cells[2:]}


def test_a_row_an_arm():
    tiny = experiment(arms=("gates", "late"))
    found = rows(arms_table(tiny, trained(tiny, plain=[10.0, 20.0, 30.0], gates=[9.0, 18.5, 28.0], late=[10, 21, 29])))
    assert list(found) == ["everything (control)", "everything, with gates", list(found)[2]]
    assert found["everything, with gates"] == {
        "trained": "everything, with gates",
        "parameters trained": "1,100",
        "to store": "4.4 kB",
        "step time": "1.10",
        "learning rate": "0.1, lowest",
        "error %": "18.50 ± 23.60",
        "to the control": "**-1.50 ± 1.24**",
        "calibration error %": "4.62 ± 5.90",
        "error % under corruptions": "46.25 ± 59.00",
    }
    control = found["everything (control)"]
    assert (control["to the control"], control["step time"], control["error %"]) == ("", "1.00", "20.00 ± 24.84")
    assert list(found.values())[2]["to the control"] == "+0.00 ± 2.48"


def test_gates_are_compared_with_the_same_without_them_where_that_is_trained():
    errors = {"plain": [10.0, 20.0, 30.0], "wide gates": [8.0, 18.5, 28.0]}
    both = experiment(arms=("wide", "wide gates"))
    found = rows(arms_table(both, trained(both, wide=[9.0, 19.0, 29.0], **errors)))
    title = "everything, wider, with gates"
    assert found[title]["to the control"] == "**-0.83 ± 0.72** (to everything, wider)"
    assert found["everything, wider"]["to the control"] == "**-1.00 ± 0.00**"
    alone = experiment(arms=("wide gates",))
    assert rows(arms_table(alone, trained(alone, **errors)))[title]["to the control"] == "**-1.83 ± 0.72**"
    said = "| An experiment: tiny | everything, wider, with gates (to everything, wider) | "
    assert said in robustness_table({both: trained(both, wide=[9.0, 19.0, 29.0], **errors)})


def test_what_is_missing_is_empty():
    tiny = experiment()
    found = rows(arms_table(tiny, [*trained(tiny, plain=[10.0]), record(tiny, "gates", 0, 0.1, 9.0)]))
    assert found["everything (control)"]["error %"] == "10.00"
    assert set(found["everything, with gates"].values()) == {"everything, with gates", ""}
    assert "nan" not in arms_table(tiny, trained(tiny, plain=[10.0], gates=[9.0]))
    assert rows(arms_table(tiny, []))


def test_diverged_trainings_are_said_and_counted():
    tiny = experiment()
    found = trained(tiny, plain=[10.0, 10.0, 10.0], gates=[9.0, 9.0, 100.0])
    found = [each if each.top1 < 100 else replace(each, loss=None, ece=None) for each in found]
    row = rows(arms_table(tiny, found))["everything, with gates"]
    assert row["error %"].startswith("39.33 ±") and row["error %"].endswith(", 1 diverged")
    assert row["calibration error %"] == "2.25 ± 0.00" and row["to the control"].startswith("+29.33 ±")


def test_steps_are_compared_on_the_same_device():
    tiny = experiment()
    found = trained(tiny, plain=[10.0, 10.0, 10.0], gates=[9.0, 9.0, 9.0])
    found = [
        replace(each, device="a GPU", step=0.01) if (each.job.arm, each.job.seed) == ("gates", 1) else each
        for each in found
    ]
    assert rows(arms_table(tiny, found))["everything, with gates"]["step time"] == "1.10"
    assert what_was_run(tiny, found) == (
        "`resnet20` on 500 images of digits, 28 pixels, 2 epochs, 3 seeds, learning rates 0.1, 0.2; 3.0 hours on "
        "a CPU, a GPU."
    )


def test_steps_are_left_out_where_the_machine_did_other_work():
    tiny = experiment()
    found = trained(tiny, plain=[10.0, 10.0, 10.0], gates=[9.0, 9.0, 9.0])
    slower = [replace(each, step=0.15) if each.job.seed == 0 else each for each in found]
    assert rows(arms_table(tiny, slower))["everything, with gates"]["step time"] == "1.10"
    busy = [replace(each, step=0.9) if (each.job.arm, each.job.seed) == ("plain", 0) else each for each in found]
    assert [row["step time"] for row in rows(arms_table(tiny, busy)).values()] == ["", ""]
    untrained = [replace(each, step=0.0) if each.job.arm == "plain" else each for each in found]
    assert [row["step time"] for row in rows(arms_table(tiny, untrained)).values()] == ["", ""]


def test_few_shot_trainings_are_told_in_tasks():
    assert what_was_run(experiment(data="fewshot-digits", images=500), []).startswith(
        "`resnet20` on 20 tasks of fashion, a step each, 28 pixels; rates chosen on 100 tasks of mnist, tested on 100 "
        "of digits, 3 seeds"
    )


def test_rates_at_an_end_are_marked():
    for rates, said in (((0.1,), "0.1"), ((0.01, 0.1), "0.1, highest"), ((0.01, 0.1, 1.0), "0.1")):
        tiny = experiment(rates=rates)
        found = [record(tiny, "plain", seed, lr, 10.0, held_out=abs(lr - 0.1)) for lr in rates for seed in range(3)]
        assert rows(arms_table(tiny, found))["everything (control)"]["learning rate"] == said


def test_an_arm_is_marked_until_all_of_it_is_trained():
    tiny = experiment()
    found = trained(tiny, plain=[10.0, 20.0, 30.0], gates=[9.0, 18.5, 28.0])
    less = [each for each in found if each.job != tiny.job("gates", 2, 0.2)]  # at a rate that was not chosen
    row = rows(arms_table(tiny, less))["everything, with gates"]
    assert row["learning rate"] == "0.1, lowest, so far"
    assert row["to the control"] == "-1.50 ± 1.24"


def test_errors_by_domain_are_those_of_the_chosen_rate():
    """The first records have none."""
    tiny = experiment()
    found = trained(tiny, plain=[10.0, 20.0, 30.0], gates=[9.0, 18.5, 28.0])
    assert domains_table(tiny, found) == ""
    some = [
        replace(each, domains={"noise": 5.0, "blur": each.job.lr * each.job.seed}) if each.job.arm == "gates" else each
        for each in found
    ]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in domains_table(tiny, some).splitlines()]
    assert cells[0] == ["error % by domain", "blur", "noise"]
    assert cells[2:] == [["everything (control)", "", ""], ["everything, with gates", "0.10 ± 0.25", "5.00 ± 0.00"]]


def test_robustness_is_of_all_gated_arms():
    one, other = experiment("one", arms=("gates", "wide")), experiment("other")
    table = robustness_table({one: trained(one, plain=[10.0, 11.0], gates=[9.0, 9.5], wide=[8, 8]), other: []})
    assert len(table.splitlines()) == 3 and "| An experiment: one | everything, with gates |" in table
    assert "-0.31 ± 0.79" in table and "-3.12 ± 7.94" in table
    assert robustness_table({other: []}) == ""
