"""
For whoever writes a `JobStore`: a suite that holds it to the protocol, and a plain model.

    class TestMyStore(JobStoreSuite):
        def open_store(self) -> JobStore:
            return MyStore(self.path)

        @pytest.fixture(autouse=True)
        def _path(self, tmp_path: Path) -> None:
            self.path = tmp_path / "store"
"""

from csjd.testing.stores.crash_suite import JobStoreCrashSuite as JobStoreCrashSuite
from csjd.testing.stores.histories import accepted as accepted, random_batch as random_batch
from csjd.testing.stores.memory import MemoryJobStore as MemoryJobStore
from csjd.testing.stores.model import (
    StoreModel as StoreModel,
    Summary as Summary,
    summarize as summarize,
)
from csjd.testing.stores.suite import JobStoreSuite as JobStoreSuite
