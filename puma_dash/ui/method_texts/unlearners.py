"""The methods that take the influence of rows away; by key of ``UNLEARNERS``.

Numbers are those of benchmarks/RESULTS.md and docs/experiments.md, and of removals from the digits demo.
"""

from puma_dash.ui.method_texts.base import MethodText

UNLEARNERS = {
    "puma": MethodText(
        label="PUMA",
        reference="Wu, Hashemi & Srinivasa (2022), PUMA: performance unchanged model augmentation",
        idea="The weights move to where training without the marked rows would end, to first order, and "
        "other rows count a little more, so that what must hold, holds.",
        formula=r"$\Delta\theta = -\tfrac{\tau}{n} B^{-1} \sum_j e_j \nabla\ell_j$ with $e_j = -1$ for "
        r"removed rows, $e_j = \lambda_j \ge 0$ for those that compensate, and $\tau$ lowered until the "
        "measured rails hold.",
        needs="It needs the trained model, its loss and weight decay, and evaluation rows for what must "
        "hold, but no records of training and no retraining.",
        cost="It takes one solve for the step and one for each held criterion: on 60,000 MNIST images one "
        "step cost 2 % of retraining and three steps 19 %.",
        misleads="It leaves traces (on wrongly labelled rows of digits an attack told it from retraining "
        "without an error), and a rail that binds lowers the strength, so read how much was applied.",
    ),
    "influence": MethodText(
        label="naive influence removal",
        reference="Koh & Liang (2017), Understanding black-box predictions via influence functions",
        idea="This is the first-order step of PUMA without its conscience: the influence of the marked rows "
        "goes, and every other number falls where it may.",
        formula=r"$\Delta\theta = -\tfrac{\tau}{n} B^{-1} \sum_j e_j \nabla\ell_j$ over the marked rows "
        "alone.",
        needs="It needs the trained model, its loss and weight decay, and evaluation rows only to predict "
        "what it will do to the criteria.",
        cost="It takes one solve for the step and one for each criterion whose change is predicted.",
        misleads="Nothing warns where the marked rows carry another criterion: without its 40 most valuable "
        "rows the loss of two moons rose by .026, and with PUMA it held.",
    ),
    "retrain": MethodText(
        label="retraining from scratch",
        reference="the exact answer, at the full cost",
        idea="A fresh model is trained on the rows as the plan leaves them, which is the answer that all "
        "others are compared with.",
        formula=r"$\min_\theta\, \tfrac{1}{n} \sum_j (1 + e_j)\, \ell_j(\theta) + \tfrac{\mu}{2} "
        r"\lVert\theta\rVert^2$ from fresh parameters, with weight decay $\mu$ and the factor $1/n$ kept.",
        needs="It needs the trainer of the project; without one our recipe stands in, which is not the "
        "author's.",
        cost="It takes a whole training, which the other methods try to save: 80 seconds for 60,000 MNIST "
        "images and 20 epochs of a network of 57,000 parameters.",
        misleads="Two retrainings differ by their seeds, so that one of them is a draw and not the truth, "
        "and with another recipe the difference is partly the recipe's.",
    ),
    "fine_tune": MethodText(
        label="fine-tuning on the retained rows",
        reference="Golatkar, Achille & Soatto (2020), Eternal sunshine of the spotless net (baseline)",
        idea="The model is trained on for a few epochs on what remains, in the hope that it forgets what it "
        "is no longer shown.",
        formula=r"Five epochs of Adam from the trained $\theta$ on $\tfrac{1}{n} \sum_j (1 + e_j)\, \ell_j + "
        r"\tfrac{\mu}{2} \lVert\theta\rVert^2$, at a rate of .001 at most.",
        needs="It needs the trained model, its loss and weight decay, and the rows that remain, but no "
        "records of training.",
        cost="It takes five epochs by default, where training took many.",
        misleads="At a low learning rate the model stays where it was and the removed rows with it, however "
        "good its accuracy looks: on digits they could be told apart about as well as before.",
    ),
    "sisa": MethodText(
        label="SISA (ensemble of shards, retrained in part)",
        reference="Bourtoule et al. (2021), Machine unlearning",
        idea="Several models share the rows out among them from the start, so that a removal retrains only "
        "those that saw the row, and all of them vote.",
        formula=r"$p(y \mid x) = \tfrac{1}{S} \sum_s p(y \mid x;\, \theta_s)$, where shard $s$ goes back to "
        "the checkpoint before the first of its slices that holds a marked row.",
        needs="It needs an ensemble that was trained ahead, by default of five shards with three slices "
        "each; where there is none it is trained first, which is told and not counted.",
        cost="A row or two cost a part of one shard's training; 50 random rows of digits touched the first "
        "slice of every shard, which is the whole training again.",
        misleads="It is exact for its ensemble and not for your model: every member saw only its shard, so "
        "that what changes is that, too.",
    ),
    "amnesiac": MethodText(
        label="Amnesiac ML (logged updates taken back)",
        reference="Graves, Nagisetty & Ganesh (2021), Amnesiac machine learning",
        idea="Training keeps a log of what each batch did to the weights, and what the batches with a marked "
        "row did is taken back.",
        formula=r"$\Delta\theta = -\sum_{b \in M} \Delta\theta_b$ over all batches $M$ with a marked row, "
        "then two epochs on the retained rows as a repair.",
        needs="It needs the rows of each batch and its change of the weights, which the training recorder "
        "keeps if told to.",
        cost="It takes the two epochs of the repair, and memory for a copy of the weights for every step "
        "that training took.",
        misleads="Each row is in a batch of every epoch, so that 50 rows of digits undo all of training and "
        "leave an accuracy of .2; it holds where about one batch in a hundred is undone.",
    ),
    "unrolled_sgd": MethodText(
        label="unrolled SGD (gradients at the start)",
        reference="Thudi, Deza, Chandrasekaran & Papernot (2022), Unrolling SGD",
        idea="Training is a sum of steps, and the part of it that came from the marked rows is taken back as "
        "if all of them had been made at the start.",
        formula=r"$\Delta\theta = -\tau\, \tfrac{\eta E}{b} \sum_j e_j \nabla\ell_j(\theta_0)$ for $E$ "
        r"epochs with learning rate $\eta$ and batches of $b$ rows, from $\theta_0$.",
        needs="It needs the parameters before training, the learning rates and the batches, which the "
        "training recorder keeps.",
        cost="It takes one gradient of the marked rows, less than any other method.",
        misleads="It is right for a few small steps of plain SGD, and after long training, momentum or Adam "
        "the start says little about the end: on digits the patch did next to nothing.",
    ),
    "gradient_ascent": MethodText(
        label="gradient ascent on the removed rows",
        reference="Jang et al. (2023), Knowledge unlearning for mitigating privacy risks in language models",
        idea="The model climbs the loss of the marked rows until it gets them wrong, and stands here as a "
        "warning: being wrong about a row is not the same as never having seen it.",
        formula=r"$\theta \leftarrow \theta - \tfrac{\tau \eta}{k} \sum_j e_j \nabla\ell_j(\theta)$, ten "
        r"times, with $e_j = -1$ for the $k$ marked rows.",
        needs="It needs the trained model, its loss and the marked rows, nothing else.",
        cost="It takes ten gradients of the marked rows.",
        misleads="Nothing holds the other rows and a loss has no top: 50 random rows of digits took the "
        "accuracy from .94 to .53, where retraining without them kept it.",
    ),
}
