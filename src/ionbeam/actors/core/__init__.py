"""The actor runtime: mailboxes, deliveries, patience, supervision. What messages say is not its matter."""

from ionbeam.actors.core.backoff import Backoff, steady
from ionbeam.actors.core.delivery import Delivery, Settled, Settler
from ionbeam.actors.core.intake import BrokerSettler, intake
from ionbeam.actors.core.mailbox import Inbox, Mailbox, MailboxStatistics
from ionbeam.actors.core.patience import patient, wait_through
from ionbeam.actors.core.reason import leaves, reason_of
from ionbeam.actors.core.supervisor import Change, Child, ChildEvent, Drained, Intensity, Supervisor

__all__ = [
    "Backoff",
    "BrokerSettler",
    "Change",
    "Child",
    "ChildEvent",
    "Delivery",
    "Drained",
    "Inbox",
    "Intensity",
    "Mailbox",
    "MailboxStatistics",
    "Settled",
    "Settler",
    "Supervisor",
    "intake",
    "leaves",
    "patient",
    "reason_of",
    "steady",
    "wait_through",
]
