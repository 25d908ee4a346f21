import inspect
import pickle

import attrs

import csjd


def _events() -> list[type[csjd.Event]]:
    return [
        each
        for each in vars(csjd).values()
        if inspect.isclass(each) and issubclass(each, csjd.Event)
    ]


def test_events_are_frozen_and_dated() -> None:
    for event in _events():
        assert attrs.has(event)
        assert "at" in attrs.fields_dict(event)
        assert event.__setattr__ is csjd.Event.__setattr__, event  # attrs' frozen one
        assert event.__doc__


def test_events_about_a_job_name_it() -> None:
    for event in _events():
        if "job" in attrs.fields_dict(event) and event is not csjd.SessionHalted:
            assert issubclass(event, csjd.JobEvent), event


def test_event_survives_pickling() -> None:
    event = csjd.AttemptStarted(at=1.5, job=csjd.Job(type="t", id="a"), attempt=2, worker=0)
    assert event == csjd.AttemptStarted(at=1.5, job=event.job, attempt=2, worker=0)
    again = pickle.loads(pickle.dumps(csjd.WorkerAdded(at=1.0, worker=3)))
    assert again == csjd.WorkerAdded(at=1.0, worker=3)
