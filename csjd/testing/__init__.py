"""
What csjd is tested with, for tests of programs that use it.

* `run_virtual`, `open_test_dispatcher`: a dispatcher on virtual time.
* `ScriptedHandler` and its steps; `blocking` for plain functions in virtual threads.
* `Recorder`: an observer that writes everything down. `Checker`: one that judges it.
* `assert_no_leaks`: nothing of csjd is left.
* `TrioGuest`: a Trio program stepped through by plain code, such as a rule-based machine.
* `csjd.testing.simulation.simulate`: one seeded run with everything going wrong.

For stores: `csjd.testing.simfs` (a disk that forgets) and `csjd.testing.stores` (a
conformance suite). `machine_core`, `machine_dispatcher` and `machine_store`, which lets a
dispatcher with a store die again and again, need hypothesis and are imported by name.
"""

from csjd.testing.checker import Checker as Checker, PromiseBrokenError as PromiseBrokenError
from csjd.testing.determinism import (
    SchedulingChangedError as SchedulingChangedError,
    deterministic_schedule as deterministic_schedule,
)
from csjd.testing.guest import GuestStuckError as GuestStuckError, TrioGuest as TrioGuest
from csjd.testing.idle import IdleWatch as IdleWatch
from csjd.testing.leaks import assert_no_leaks as assert_no_leaks
from csjd.testing.model import Model as Model, ModelJob as ModelJob
from csjd.testing.recorder import Recorder as Recorder
from csjd.testing.scripts import (
    Call as Call,
    CleanUp as CleanUp,
    Hang as Hang,
    IgnoreCancel as IgnoreCancel,
    Raise as Raise,
    Return as Return,
    ScriptedHandler as ScriptedHandler,
    Sleep as Sleep,
    Step as Step,
    retry_after as retry_after,
    snooze as snooze,
)
from csjd.testing.threads import blocking as blocking, virtual_threads as virtual_threads
from csjd.testing.virtual import (
    open_test_dispatcher as open_test_dispatcher,
    run_virtual as run_virtual,
)
from csjd.testing.wakeups import check_wakeups as check_wakeups
