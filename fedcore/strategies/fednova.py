"""FedNova: each site counts for its samples, however many steps it made.

Wang et al., Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization, 2020, equation 6 with
plain gradient descent at the sites. With p_i the site's share of the training samples and t_i its optimiser steps,

    x <- x - (sum_i p_i t_i) sum_i p_i (x - y_i) / t_i

FedAvg, where sites make unequal numbers of steps, minimises sum_i p_i t_i f_i in the limit of small steps; FedNova
sum_i p_i f_i. What drift there is within a site's own steps stays. In a round that not all sites answer the shares are
those of the sites that do. With Adam at the sites, whose steps are of equal length, steps are still what is divided by:
the paper has no such rule for it.
"""

from collections.abc import Sequence

from fedcore.learner import Arrays
from fedcore.rule import Averaging, Reply, combination, ruled, with_mean_statistics
from fedcore.strategies.strategy import StrategySpec


class FedNova(Averaging):
    """The server's half."""

    def combine(self, arrays: Arrays, replies: Sequence[Reply]) -> Arrays:
        """See the module."""
        total = sum(reply.samples for reply in replies)
        steps = sum(reply.samples * reply.steps for reply in replies) / total
        factors = [steps * reply.samples / (total * reply.steps) for reply in replies]
        moved = [(factor, reply.arrays) for factor, reply in zip(factors, replies, strict=True)]
        return with_mean_statistics(combination((1 - sum(factors), arrays), *moved), replies)


STRATEGY = StrategySpec(
    build=ruled(lambda _roster, _setting: FedNova()),
    title="FedNova",
    paper="Wang et al., Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization, 2020",
    when="sites differ in size, and so in the steps that an epoch is",
)
