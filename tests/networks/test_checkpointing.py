from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet
from torch import nn

import networks
from networks import HighResUNet, checkpoint_activations, count_gmacs
from networks.checkpointing import blocks_of
from tests.networks.building import build

DROPPING = partial(BasicUNet, 2, features=(4, 4, 8, 8, 8, 4), dropout=0.3)
DYNAMIC = partial(
    DynUNet,
    2,
    kernel_size=[3] * 3,
    strides=[1, 2, 2],
    upsample_kernel_size=[2] * 2,
    filters=[4, 8, 8],
    norm_name="batch",
)
MONAI = [pytest.param(DROPPING, id="BasicUNet with dropout"), pytest.param(DYNAMIC, id="DynUNet")]
# Of each kind of block one, thin where its class allows it.
OURS = {
    "HighResUNet": partial(networks.HighResUNet, width=4),
    "HighResUNet, dense": partial(networks.HighResUNet, width=4, separable=False, residual=False),
    "CEUSegNet": networks.CEUSegNet,
    "DeepLabV3Plus": partial(networks.DeepLabV3Plus, backbone="mobilenet_v2"),
    "FCN8s": networks.FCN8s,
    "LightUNet": networks.LightUNet,
    "ReducedUNet": networks.ReducedUNet,
    "ModularUNet, NAS": partial(networks.ModularUNet, conv_block="nas", down="nas_reduction"),
    "ModularUNet, attention": partial(networks.ModularUNet, skip="attention"),
}


def trained(network, images, steps=1):
    """The losses of some steps; the network is changed."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    network.train()
    for step in range(steps):
        torch.manual_seed(step)  # of what dropout draws
        optimizer.zero_grad()
        loss = network(images).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("variant", [*(pytest.param(v, id=k) for k, v in OURS.items()), *MONAI])
def test_training_is_that_of_the_plain_network(variant):
    plain = build(variant)
    channels, side = getattr(plain, "image_channels", 1), max(64, 2 * getattr(plain, "least_size", 16))
    saving = checkpoint_activations(copy.deepcopy(plain))
    images = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    losses = [trained(network, images) for network in (plain, saving)]
    torch.testing.assert_close(losses[1], losses[0])
    # Weights after steps, and what norms count and average: once an image, not twice.
    state = plain.state_dict()
    assert list(saving.state_dict()) == list(state)
    for key, value in saving.state_dict().items():
        torch.testing.assert_close(value, state[key], msg=lambda text, key=key: f"{key}: {text}")
    gradients = {name: one.grad for name, one in plain.named_parameters()}
    for name, parameter in saving.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


def test_the_norms_of_a_second_pass_would_count_twice():
    network = HighResUNet(width=2)
    blocks = blocks_of(network)
    assert all(any(isinstance(one, nn.BatchNorm2d) for one in block.modules()) for block in blocks)
    trained(checkpoint_activations(network), torch.randn(2, 1, 128, 128), steps=3)
    counts = {int(one.num_batches_tracked) for one in network.modules() if isinstance(one, nn.BatchNorm2d)}
    assert counts == {3}


def passes(network):
    """How often each block is computed in a step."""
    counts = []
    for number, block in enumerate(blocks_of(network)):
        counts.append(0)

        def count(module, inputs, number=number):
            counts[number] += 1

        # Before its first layer, since a recomputation does not go through the block's own hooks.
        next(one for one in block.modules() if isinstance(one, nn.Conv2d)).register_forward_pre_hook(count)
    network(torch.rand(1, 1, 128, 128)).mean().backward()
    return counts


def test_each_block_is_computed_twice_in_training_alone():
    network = HighResUNet(width=2)
    assert passes(copy.deepcopy(network)) == [1] * 13
    checkpoint_activations(network)
    assert passes(copy.deepcopy(network)) == [2] * 13
    assert passes(copy.deepcopy(network).eval()) == [1] * 13
    assert passes(checkpoint_activations(copy.deepcopy(network))) == [2] * 13  # not thrice


def kept(network):
    """Numbers that are kept for the backward pass, without weights."""
    weights = {one.data_ptr() for one in network.parameters()}
    sizes = {}

    def pack(tensor):
        if tensor.data_ptr() not in weights:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.rand(1, 1, 128, 128))
    return sum(sizes.values())


def test_the_features_within_blocks_are_not_kept():
    network = HighResUNet(width=4)
    plain = kept(copy.deepcopy(network))
    # Of 51 maps of the finest level, only the inputs of the blocks and of the head.
    assert kept(checkpoint_activations(network)) < 0.15 * plain


def test_a_unet_gives_the_levels_of_its_encoder_and_the_steps_of_its_decoder():
    network = HighResUNet(width=2)
    assert blocks_of(network) == [*network.encoder.levels, *network.decoder.steps]


def test_a_part_that_hangs_in_two_places_is_one_block():
    network = DYNAMIC(in_channels=1, out_channels=1)
    expected = [network.input_block, *network.downsamples, network.bottleneck, *network.upsamples]
    assert blocks_of(network) == expected


def test_blocks_can_be_named():
    network = HighResUNet(width=2)
    checkpoint_activations(network, [network.decoder.steps[-1]])
    assert passes(network) == [1] * 12 + [2]


def test_what_counts_and_copies_networks_still_does():
    network = HighResUNet(width=2)
    gmacs = count_gmacs(network, (1, 128, 128))
    checkpoint_activations(network)
    assert count_gmacs(network, (1, 128, 128)) == gmacs
    other = copy.deepcopy(network)
    trained(other, torch.rand(1, 1, 128, 128))
    assert all(one.grad is None for one in network.parameters())
    assert all(one.grad is not None for one in other.parameters())


def test_weights_load_either_way():
    plain, saving = HighResUNet(width=2), checkpoint_activations(HighResUNet(width=2))
    saving.load_state_dict(plain.state_dict())
    plain.load_state_dict(saving.state_dict())


def test_mixed_precision_gives_the_same_gradients():
    plain = build(partial(HighResUNet, width=4))
    saving = checkpoint_activations(copy.deepcopy(plain))
    images = torch.rand(1, 1, 128, 128)
    for network in (plain, saving):
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(images).float().square().mean()
        loss.backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
