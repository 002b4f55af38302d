"""What vLLM's workers are given besides, where vectors are added at a block.

vLLM makes :class:`AddsAtBlock` a base class of its worker, in whatever process that lives, and
calls its method by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nla_audit.errors import UserError
from nla_audit.nla.architecture import blocks_of, decoder_of
from nla_audit.nla.block_entrance import BlockEntrance


class AddsAtBlock:
    """An extension of vLLM's worker (``worker_extension_cls``)."""

    # Without values: vLLM takes no extension that has what its worker has.
    get_model: Any
    _nla_audit_entrance: BlockEntrance | None

    def nla_audit_add_at_block(self, block: int | None, embedding: Sequence[float]) -> str | None:
        """Have the model add vectors at this block from now on, and at no other.

        Args:
            block: its index; ``None`` for none.
            embedding: ``[d_model]``, of the token that the vectors are added at.

        Returns:
            Why that is not possible, in words; an error would end the worker.
        """
        before = getattr(self, "_nla_audit_entrance", None)
        if before is not None:
            before.remove()
        self._nla_audit_entrance = None
        if block is None:
            return None
        try:
            model = self.get_model()
            if _begins_here(model, block):
                self._nla_audit_entrance = BlockEntrance(model, block, torch.tensor(embedding))
        except UserError as error:
            return str(error)
        return None


def _begins_here(model: Any, block: int) -> bool:
    """Whether this worker's part of the model is the one that prompts come into.

    Raises:
        UserError: it is, and ``block`` is in another part.
    """
    blocks = blocks_of(decoder_of(model))
    # In the place of a block that another worker has there is one that does nothing.
    if isinstance(blocks[0], nn.Identity):
        return False
    if block < len(blocks) and isinstance(blocks[block], nn.Identity):
        raise UserError(
            f"block {block} is on another device than the first (pipeline_parallel_size)"
        )
    return True
