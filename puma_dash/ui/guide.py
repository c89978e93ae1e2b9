"""The words of the Guide page: the method on one page, a glossary, what influence cannot do, the keys.

Those on each method are in ``method_texts``.
"""

from __future__ import annotations

QUESTION = (
    "A model is wrong where its training data made it wrong. PUMA Dash asks one question: **which training "
    "rows cause what I do not like, and what happens if they stop counting?**"
)

STEPS = (
    (
        "Say what you do not like",
        "A **criterion** is one number of the model on evaluation rows, lower is better: its loss, its "
        "calibration error, a gap between groups, or just the loss on these errors. The Health page turns "
        "a cell of the confusion matrix or a slice into one.",
    ),
    (
        "See which rows cause it",
        "**psi** of a training row estimates how the criterion would change if training had not seen the "
        "row. Every row has one; the map draws all of them. Orange rows are harmful, blue rows valuable.",
    ),
    (
        "Mark rows",
        "Draw around them, take the most harmful, or write a rule. Mark them to be removed, to count more, "
        "or to get another label. The forecast adds up psi at once; *Refine* predicts accuracy, calibration "
        "and which rows change class.",
    ),
    (
        "Patch",
        "The patch changes the weights of the model to where they would be without the rows, without "
        "training: one solve with the curvature of the training objective. Other rows are re-weighted a "
        "little, so that what must hold, holds. What was predicted stands beside what was measured.",
    ),
    (
        "Compare and decide",
        "Before and after on validation, with intervals. Accepting opens the test split, once, and the "
        "ledger counts how often. Nothing is current until you accept it, and every version can be brought "
        "back.",
    ),
)

FORMULAS = (
    (
        "Training minimises J(θ), the mean loss of the n training rows plus weight decay. Counting row j "
        "with weight $1 + e_j$ moves its minimum, to first order, by",
        r"\Delta\theta = -\tfrac{1}{n}\, B^{-1} \sum_j e_j \nabla \ell_j(\theta)",
    ),
    (
        "where B is the curvature of J (for networks the Gauss-Newton matrix, plus damping). Removing a row "
        "is e = −1. So a criterion C changes by",
        r"\Delta C = -\tfrac{1}{n} \sum_j e_j\, \psi_j",
    ),
    (
        "with psi of row j",
        r"\psi_j = \nabla C^{\top} B^{-1} \nabla \ell_j",
    ),
    (
        "PUMA (Wu, Hashemi and Srinivasa, AAAI 2022) gives the other rows small extra weights λ that undo "
        "what the change does to the held criteria, s. By default only harm is undone:",
        r"\min_{0 \le \lambda \le \bar\lambda} \lVert S(\Psi \lambda - s_+) \rVert^2 + "
        r"\alpha \lVert \lambda \rVert_1 + \beta \lVert \lambda \rVert^2",
    ),
    (
        "Then the held criteria are measured. Where one got worse than allowed, more is compensated, and at "
        "last the strength τ is lowered until the rails hold:",
        r"C_k(\theta + \tau\,\Delta\theta) - C_k(\theta) \le \text{tolerance}_k",
    ),
)

GLOSSARY = {
    "psi": "Influence of a training row on a criterion. Removing row j changes the criterion by about "
    r"$\psi_j / n$. Negative: removing it helps (harmful). Positive: the row is valuable.",
    "criterion": "A number of the model on evaluation rows, lower is better.",
    "held criterion, rail": "A criterion that a patch must not make worse by more than its tolerance.",
    "forecast": "What marking rows is predicted to do, before anything is changed.",
    "patch": "A change of the model's weights, with what was asked, predicted and measured.",
    "strength": "How much of the marked change is applied: 1 is all of it.",
    "steps": "1 is the straight line of the paper. With more, the curvature is taken anew where the last "
    "step ended; the result comes closer to retraining.",
    "as if never seen / forget": "Two intents. The first aims at the model that training without the rows "
    "would give. The second raises the loss on the rows, and keeps the model elsewhere as it is.",
    "compensation": "The small weights that other rows get, so that the rails hold.",
    "damping": "Added to the curvature, so that steps stay where the straight line can be trusted. "
    "Automatic damping is measured on trial removals.",
    "fidelity": "Correlation of psi with its exact value that the solve stops at.",
    "NLL": "Negative log-likelihood, the mean cross-entropy, in nats.",
    "ECE": "Expected calibration error: the mean distance between confidence and accuracy.",
    "interval": "95 % unless said otherwise: Wilson for shares, bootstrap over evaluation rows for the rest.",
    "flipped label": "A right label replaced by another at random, to see who finds it. Real errors are "
    "often harder: they follow a pattern.",
    "mislabel curve": "Share of the flipped labels found against share of the rows inspected, the most "
    "suspicious first. Chance is the diagonal.",
    "AUC": "Chance that a row of one kind scores beyond a row of the other, ties counting half: .5 cannot "
    "tell them apart, 1 always does.",
    "linear datamodeling score, LDS": "Rank correlation, over random halves of the training rows, of what "
    "retraining on a half does to the criterion with the sum of the scores of the rows left out.",
    "recorder": "A small object in a training loop, three lines of code, that keeps what some methods ask "
    "for later: where training began, checkpoints, batches. The demos come with its records.",
    "checkpoint": "The weights as they were after some epoch of training, kept with the learning rate.",
    "shard, slice": "SISA deals the rows to shards, one model each, and every shard into slices that its "
    "model sees one after the other, a checkpoint after each.",
    "membership score": "How much more likely a model's answer on a row is among models that trained on the "
    "row than among models that did not (LiRA). Above 0 it looks like a member.",
    "verdict": "pass: the interval lies within the tolerance. fail: it lies beyond. inconclusive: it does "
    "both; more evaluation rows would tell.",
}

LIMITS = (
    "psi is a straight line drawn at the trained model. It is most right for few rows and small changes. "
    "Groups move further than the sum of their rows; look at the measured change.",
    "It answers what *these* evaluation rows say. A validation split with errors of its own teaches the "
    "wrong lesson.",
    "It needs the training objective: loss, weight decay and data as they were. Health says whether the "
    "model is at a minimum of what was declared.",
    "A patch is an estimate of retraining, not a proof that a row left no trace. The evidence of removal is "
    "evidence.",
    "Harmful rows are not always wrong rows. A rare, right example can hurt the average. Look before you "
    "remove.",
    "It does not look for wrong labels. The plain training loss finds more of those flipped at random; psi "
    "says which rows move *this* number.",
    "Choosing rows by validation and judging on validation flatters. That is why test is opened once, at "
    "the end.",
)

KEYS_MEAN = {
    "harmful": "select the most harmful rows",
    "remove": "mark the selected rows to be removed",
    "undo": "undo",
    "redo": "redo",
    "deselect": "deselect",
    "patch": "go on: from marks to Patch, and there the patch itself",
}
"""What each of ``text.KEYS`` does."""
