import torch

from diffusion_lab.models.graph_features import EdgeFeatures, NodeFeatures


def test_edge_attributes_follow_their_edges_into_the_order_of_attention():
    edge_index = torch.tensor([[5, 6, 7, 8], [1, 0, 1, 0]])
    attributes = edge_index[0, :, None] * 10.0 + edge_index[1, :, None]
    features = EdgeFeatures(edge_index, attributes, num_targets=2, trainable_size=3)
    nb = features.neighbours
    torch.testing.assert_close(features()[:, 0], nb.source * 10.0 + edge_index[1, nb.order])
    assert features().shape == (4, features.width) == (4, 4)


def test_trainable_features_start_at_zero_and_learn():
    nodes = NodeFeatures(torch.ones(5, 2), trainable_size=2)
    torch.testing.assert_close(nodes(), torch.tensor([1.0, 1, 0, 0]).expand(5, 4))
    (nodes() * torch.arange(20.0).view(5, 4)).sum().backward()
    torch.testing.assert_close(nodes.trainable.grad, torch.arange(20.0).view(5, 4)[:, 2:])
    assert list(dict(nodes.named_parameters())) == ["trainable"]
    assert list(nodes.state_dict()) == ["trainable"]  # fixed attributes come from the graph
