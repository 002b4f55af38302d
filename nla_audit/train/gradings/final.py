"""The whole explanation, and nothing else, is graded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nla_audit.train.grading import Ends, Grading, grading, same_everywhere

if TYPE_CHECKING:
    from nla_audit.train.responses import Responses


@grading("whole text", "the whole explanation earns the reward and pays λ for each of its tokens")
class Final(Grading):
    """One graded end, behind the last token."""

    kind: Literal["final"] = "final"

    def ends(self, responses: Responses, length_penalty: float) -> Ends:
        return Ends(
            stops=responses.lengths[:, None],
            texts=[[text] for text in responses.said.explanations],
            weights=same_everywhere(1.0, responses, 1),
            penalties=same_everywhere(length_penalty, responses, 1),
        )
