"""Data sets: a name becomes tensors. A new one is a file here and a line in `DATA`."""

from twophase.data import cifar, digits, mnist1d, synthetic
from twophase.data.dataset import Dataset, Source, stratified

DATA: dict[str, Source] = {
    "cifar10": cifar.SOURCE_10,
    "cifar100": cifar.SOURCE_100,
    "digits": digits.SOURCE,
    "mnist1d": mnist1d.SOURCE,
    "synthetic": synthetic.SOURCE,
}

__all__ = ["DATA", "Dataset", "Source", "stratified"]
