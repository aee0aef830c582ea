"""Let a CUDA build of torchvision import beside a CPU build of torch.

Such a torchvision cannot load its operator library, and its own module
`_meta_registrations` then fails with "operator torchvision::nms does not exist",
taking the vision models of transformers and vLLM with it. Declaring the two
operators that module looks for is enough: nothing here calls them.

`cluster.setup.install` copies this file into the virtual environment beside a .pth
file that imports it in every process, and only where torchvision fails to import.
"""

import sys
from importlib.abc import MetaPathFinder

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries = []  # a torch Library undoes its definitions when it is collected


class _DeclareOperators(MetaPathFinder):
    """Declares the operators just before torchvision looks for them; finds no module itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision._meta_registrations":
            return None
        import torch

        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                library = torch.library.Library("torchvision", "FRAGMENT")
                library.define(operator + _SIGNATURE)
                _libraries.append(library)
        return None


sys.meta_path.insert(0, _DeclareOperators())
