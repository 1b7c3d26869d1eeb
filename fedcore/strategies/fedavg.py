"""FedAvg, Flower's own: the average of the sites' models, weighted by their numbers of training samples.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017.
"""

from flwr.serverapp.strategy import FedAvg, Strategy

from fedcore.strategies.strategy import sums


def build(sites: int) -> Strategy:
    """FedAvg over all sites; `min_*_nodes` follow them, since the default of 2 waits for ever for one."""
    return FedAvg(
        min_train_nodes=sites,
        min_evaluate_nodes=sites,
        min_available_nodes=sites,
        train_metrics_aggr_fn=sums,
        evaluate_metrics_aggr_fn=sums,
    )
