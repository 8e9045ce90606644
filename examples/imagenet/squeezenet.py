"""SqueezeNet 1.0 (Iandola et al. 2016, table 1), as in the authors' Caffe model: pools round up, conv1 has no padding.

edgewise export squeezenet10_imagenet.pth --arch examples/imagenet/squeezenet.py:squeezenet10 \
        --input "image=f32[batch,3,227,227]" -o squeezenet.onnx
"""

import torch
from torch import nn
from torch.nn import functional


class Fire(nn.Module):
    """Squeeze to few channels with 1x1, expand with 1x1 and 3x3 side by side."""

    def __init__(self, channels_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(channels_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.squeeze1x1(x))
        return functional.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(nn.Module):
    """Eight fire modules between two convolutions; ReLU after the last one, then the global average."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        widths = {2: (96, 16, 64), 3: (128, 16, 64), 4: (128, 32, 128), 5: (256, 32, 128)}
        widths |= {6: (256, 48, 192), 7: (384, 48, 192), 8: (384, 64, 256), 9: (512, 64, 256)}
        for number, (channels_in, squeeze, expand) in widths.items():
            self.add_module(f"fire{number}", Fire(channels_in, squeeze, expand))
        self.conv10 = nn.Conv2d(512, classes, 1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """f32[N,3,227,227], BGR 0 to 255 less (104, 117, 123), to f32[N,classes] logits."""
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(self.fire4(self.fire3(self.fire2(x))))
        x = self.pool(self.fire8(self.fire7(self.fire6(self.fire5(x)))))
        return functional.relu(self.conv10(self.fire9(x))).mean((2, 3))


def squeezenet10(classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.0: 1.25 M parameters."""
    return SqueezeNet(classes)
