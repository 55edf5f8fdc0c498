"""Ray's provider of fake machines, of which each takes its time to come: that it is starting can be seen."""

import time

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

TAKES = 10.0  # seconds


class SlowNodes(FakeMultiNodeProvider):
    """Machines that come late."""

    def create_node_with_resources_and_labels(self, *given):
        time.sleep(TAKES)
        super().create_node_with_resources_and_labels(*given)
