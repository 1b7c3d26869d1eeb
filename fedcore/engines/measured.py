"""A Flower strategy that leaves what batch normalisation measured to averages.

Flower's server optimisers step along whatever changed, running variances included, and momentum carries those below 0,
after which the model predicts NaN.
"""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcore.engines.parcels import record
from fedcore.engines.ruled import reply_of
from fedcore.rule import with_mean_statistics


class MeanStatistics(Strategy):
    """Another strategy, but with FedAvg's means of running statistics; without any it is that strategy.

    Args:
        inner: the other strategy.
    """

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `flwr.serverapp.strategy.Strategy`."""
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The other strategy's model, with means."""
        answered = list(replies)
        told = [reply_of(message) for message in answered if not message.has_error()]
        arrays, metrics = self.inner.aggregate_train(server_round, answered)
        if arrays is None:
            return arrays, metrics
        model = {name: value.numpy() for name, value in arrays.items()}
        return record(with_mean_statistics(model, told)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `flwr.serverapp.strategy.Strategy`."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """See `flwr.serverapp.strategy.Strategy`."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """See `flwr.serverapp.strategy.Strategy`."""
        self.inner.summary()
