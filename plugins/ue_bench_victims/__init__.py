"""Classifier architectures."""

from __future__ import annotations

from ue_bench.api import Register, hookimpl

VICTIMS = [
    ("resnet9", "resnet:ResNet9", "Small residual net for CPUs, 0.5 M parameters"),
    ("resnet10", "resnet:ResNet10", "Narrow ResNet at full resolution for CPUs, 0.3 M parameters"),
    ("resnet18", "resnet:ResNet18", "ResNet-18, CIFAR stem below 64 px, ImageNet stem above, 11.2 M parameters"),
    ("resnet34", "resnet:ResNet34", "ResNet-34, stems as resnet18, 21.3 M parameters"),
    ("resnet50", "resnet:ResNet50", "ResNet-50, stems as resnet18, 23.5 M parameters"),
    ("resnet101", "resnet:ResNet101", "ResNet-101, stems as resnet18, 42.5 M parameters"),
    ("vgg16", "vgg:VGG16", "VGG-16 with batch normalisation, 14.7 M parameters at 32 px"),
    ("vgg19", "vgg:VGG19", "VGG-19 with batch normalisation, 20.0 M parameters at 32 px"),
    ("densenet121", "densenet:DenseNet121", "DenseNet-121, stems as resnet18, 7.0 M parameters"),
    ("mobilenetv2", "mobilenet:MobileNetV2", "MobileNetV2, stems as resnet18, 2.3 M parameters"),
    ("senet18", "senet:SENet18", "ResNet-18 that weighs its channels, 11.3 M parameters"),
    ("vit", "vit:ViT", "Vision transformer of width 192, trained by AdamW, 2.7 M parameters"),
    ("linear-probe", "probe:LinearProbe", "One linear layer on frozen ImageNet features of a network"),
    ("probe", "hub_probe:HubProbe", "A pretrained network at 224 px: one linear layer on it, or fine-tuning"),
    ("timm", "timm_victim:Timm", "Any network of timm, fresh or with its weights"),
    ("simclr", "simclr:SimCLR", "Features learnt without labels (SimCLR), then one linear layer on them"),
    ("linear", "linear:Linear", "One linear layer on the pixels"),
    ("mlp", "linear:MLP", "Fully connected layers with ReLU, 2.4 M parameters at 32 px"),
]


@hookimpl
def ue_bench_register(register: Register) -> None:
    for name, target, summary in VICTIMS:
        register("victim", name, f"ue_bench_victims.{target}", summary)
