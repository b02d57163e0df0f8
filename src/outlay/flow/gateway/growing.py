"""The part of an exchange whose hold grows with its stream: what may pass now, and the cut where money ends."""

from outlay.flow.accounts import Account
from outlay.flow.authorize import Denied, Reason
from outlay.flow.gateway.admission import Admission
from outlay.flow.gateway.progress import Progress
from outlay.flow.gateway.refusal import Refusal, refusal_of
from outlay.flow.gateway.settlement import with_quote
from outlay.flow.lifecycle import State
from outlay.flow.outcome import Failure
from outlay.kernel.errors import StoreError
from outlay.kernel.ids import id_text
from outlay.wire.stream import StreamReader


class Growing(Admission):
    """See the module."""

    def _may_pass(self, progress: Progress, reader: StreamReader, out: bytes) -> bool:
        """Whether what was just read may go on now; else it is held back until its hold is on the disk, or cut off.

        Nobody stops reading meanwhile: what an engine makes into unread buffers is billed, and could not be counted.
        """
        if progress.may_pass(reader) and not self._withheld:
            return True
        if self._progress is not None and self.state is not State.ENDED:
            self._withheld += out
        return False

    def _go_on(self) -> None:
        """The hold grew: what was held back passes."""
        progress, reader = self._progress, self._reader
        if progress is None or reader is None or self.state is State.ENDED:
            return
        self._terms = with_quote(self._terms, progress.quote)
        if not self._withheld or not progress.may_pass(reader):
            return
        out, self._withheld = self._withheld, b""
        client = self._client
        if client is not None and self._has_head:
            client.write_part(out)

    def _cut_short(self, why: Account | StoreError) -> None:
        """A budget, or the ledger, does not take the next slice: the stream ends here, and says so."""
        if self._progress is None:
            return
        if isinstance(why, StoreError):
            text = "The ledger cannot record more of this stream now; it ends here."
            refusal, reason = Refusal(why.http_status, why.code, text), "the ledger took no further slice"
        else:
            needed, now = self._progress.quote.total_nanos, self._gateway.clock.now()
            denied = Denied(Reason.BUDGET_SPENT, why, needed, why.cap, why.spent, why.held)
            refusal = refusal_of(denied, self._snapshot.settings, id_text(self.id), now, self._memo.key)
            self._remember(denied, now)
            reason = "its budget took no further slice"
            self._gateway.metrics.refused("cut_at_cap")
        if self._passage is not None and self._client is not None and self._has_head:
            # a translated stream must end where its events stand; what it holds was made and is paid for
            self._client.write_part(self._withheld)
        self.kill(Failure.CLIENT_GONE, reason, refusal)
