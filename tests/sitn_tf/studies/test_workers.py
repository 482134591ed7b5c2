import os

from sitn_tf.studies import workers


def test_tasks_spread_over_workers_wait_for_each_other_and_outlive_a_death(monkeypatch):
    """Tasks of one letter are not done at once; the second of "b" kills its worker."""
    tasks = ["a1", "a2", "b1", "b2", "b3"]
    at_once = []
    monkeypatch.setattr(workers, "TASKS_A_WORKER", 2)

    def may_begin(task, running):
        if ready := task[0] not in [other[0] for other in running]:
            at_once.append(len(running))
        return ready

    outcomes = dict(workers.do_all(tasks, die_of_b2, 2, may_begin))
    assert outcomes == {"a1": "A1", "a2": "A2", "b1": "B1", "b2": 3, "b3": "B3"}
    assert max(at_once) == 1


def test_how_a_worker_ended_is_told():
    assert workers.told_end(75) == "its process ended with status 75"
    assert workers.told_end(-15) == "its process was ended by SIGTERM"
    assert workers.told_end(-9) == "its process was ended by SIGKILL, as where memory runs out"


def die_of_b2(task):
    if task == "b2":
        os._exit(3)
    return task.upper()
