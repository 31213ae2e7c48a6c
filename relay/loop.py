"""Run the message relay: cycles until a stop, with pauses while idle or in an outage."""

import threading
from collections.abc import Callable

from django.db import Error, connection

from brokers import BrokerUnavailable
from relay.cycle import Cycle
from relay.refusals import Refusal, is_refusal
from relay.timing import Timing
from relay.wake_ups import WakeUps
from saga_runtime.database_errors import AWAY
from saga_runtime.outage import Outage


class Relay:
    """Move the outbox to a broker until a stop; made by `relay.assembly`.

    Args:
        cycle: does the work.
        refusal: tells people of the database's refusals.
        timing: all intervals and timeouts.
        alive: called in each cycle.
        ready: called once, after the first cycle without an outage and with lanes to read; where
            other relays keep all lanes, after two leases.
        woken: set from outside when there is something new to read.
        clock: seconds.

    Attributes:
        cycles: how many cycles have moved messages.
        cycle_seconds: the length of these cycles, all together.
    """

    def __init__(
        self,
        cycle: Cycle,
        *,
        broker_outage: Outage,
        database_outage: Outage,
        refusal: Refusal,
        timing: Timing,
        alive: Callable[[], None],
        ready: Callable[[], None],
        woken: WakeUps,
        clock: Callable[[], float],
    ) -> None:
        self._cycle = cycle
        self._broker_outage = broker_outage
        self._database_outage = database_outage
        self._refusal = refusal
        self._timing = timing
        self._alive = alive
        self._ready = ready
        self._woken = woken
        self._clock = clock
        self._pause = timing.shortest_poll
        self._owes_read = True
        self._is_ready = False
        self._ready_without_lanes = clock() + 2 * timing.lease
        self.cycles = 0
        self.cycle_seconds = 0.0

    @property
    def published(self) -> int:
        """Return how many messages have been published, and their rows deleted."""
        return self._cycle.published

    @property
    def parked(self) -> int:
        """Return how many messages the relay has parked."""
        return self._cycle.parked.count

    @property
    def lanes_held(self) -> int:
        """Return how many lanes the relay holds."""
        return len(self._cycle.lanes.held)

    @property
    def in_flight(self) -> int:
        """Return how many messages are with the broker, or acknowledged and not yet deleted."""
        return len(self._cycle.in_flight.rows)

    @property
    def outages(self) -> dict[str, int]:
        """Return how many outages there have been, by server."""
        return {"broker": self._broker_outage.count, "database": self._database_outage.count}

    def run(self, stop: threading.Event) -> None:
        """Relay until `stop` is set, then wait for messages in flight, four seconds at most."""
        # An idle relay waits for `woken` alone; a stop has to end that wait too.
        threading.Thread(target=self._wake_for, args=(stop,), daemon=True).start()
        try:
            while not stop.is_set():
                if self._woken.is_set():
                    self._breathe(stop)
                self._owes_read |= self._woken.is_set() or not self._woken.are_heard
                # A wake-up may get lost, with the process that was to send it.
                is_old = self._clock() - self._cycle.read_at >= self._timing.longest_poll
                reads = self._cycle.reads
                # Before the cycle reads: what is committed afterwards sets the event again.
                self._woken.clear()
                moved = self._run_cycle(stop, reads=self._owes_read or is_old)
                if self._cycle.reads > reads:
                    self._owes_read = False
                rests = not moved or (self._hears_all and not self._owes_read)
                if rests and not self.in_flight and self._woken.wait(self._pause):
                    self._pause = self._timing.shortest_poll
            self._cycle.flush()
        finally:
            self._cycle.close()

    @property
    def _hears_all(self) -> bool:
        """Tell whether whatever there will be to read wakes the relay."""
        return self._woken.are_heard and self._cycle.is_caught_up

    def _breathe(self, stop: threading.Event) -> None:
        """Wait a moment after the latest read, unless the read has left rows."""
        if self._hears_all and not self.in_flight:
            left = self._cycle.read_at + self._timing.breather - self._clock()
            if 0 < left <= self._timing.breather:
                stop.wait(left)

    def _wake_for(self, stop: threading.Event) -> None:
        stop.wait()
        self._woken.set()

    def drain(self, stop: threading.Event) -> int:
        """Relay until the outbox is empty or `stop` is set.

        Returns:
            How many messages were published.

        Raises:
            django.db.Error: the database refuses a statement of the relay.
        """
        try:
            while not stop.is_set():
                moved = self._run_cycle(stop, bears_refusals=False)
                if moved or not self._cycle.is_idle:
                    continue
                if not self._cycle.store.any_left():
                    break
                stop.wait(self._timing.shortest_poll)
            self._cycle.flush()
        finally:
            self._cycle.close()
        return self.published

    def _run_cycle(
        self, stop: threading.Event, *, bears_refusals: bool = True, reads: bool = True
    ) -> bool:
        """Run a cycle; an outage or a refusal pauses and spends nothing.

        Args:
            stop: ends the pause.
            bears_refusals: go on after the database has refused a statement.
            reads: look for rows also while there is something else to do.

        Returns:
            Whether there was work.
        """
        self._alive()
        began = self._clock()
        try:
            moved = self._cycle.run(wait=self._pause, reads=reads)
        except BrokerUnavailable as error:
            stop.wait(self._broker_outage.failed(error))
            return True
        except Error as error:
            # Rows read ahead were looked up under leases that may run out in the pause.
            connection.close()
            self._cycle.reader.forget()
            stop.wait(self._pause_after(error, bears_refusals=bears_refusals))
            return True
        self._note_success(stop)
        if moved:
            self.cycles += 1
            self.cycle_seconds += self._clock() - began
        self._pause = self._next_pause(moved=moved)
        return moved

    def _note_success(self, stop: threading.Event) -> None:
        if not self._cycle.deleter.is_busy:  # a delete that runs may yet fail
            self._database_outage.over()
            self._refusal.over()
        failure = self._cycle.in_flight.take_failure()
        if failure is not None:
            stop.wait(self._broker_outage.failed(failure.reason, answers=failure.lasting))
        elif not self._is_ready:
            self._tell_when_ready()

    def _next_pause(self, *, moved: bool) -> float:
        if self._hears_all:
            return self._timing.longest_poll
        if moved:
            return self._timing.shortest_poll
        return min(self._pause * 1.5, self._timing.longest_poll)

    def _pause_after(self, error: Error, *, bears_refusals: bool) -> float:
        """Return the seconds to pause after an error of the database.

        Raises:
            django.db.Error: neither a pause nor a person can mend the error.
        """
        if is_refusal(error) and bears_refusals:
            return self._refusal.refused(error)
        if is_refusal(error) or not isinstance(error, AWAY):
            raise error
        return self._database_outage.failed(error)

    def _tell_when_ready(self) -> None:
        """Call `ready` once there are lanes: after a crash a dead relay has lanes for a while."""
        if self.lanes_held or self._clock() >= self._ready_without_lanes:
            self._is_ready = True
            self._ready()
