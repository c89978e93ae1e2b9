"""What tells how far to believe the others."""

from puma_dash.ui.method_texts.base import MethodText

JUDGES = {
    "removal_evidence": MethodText(
        label="removal evidence (membership scores)",
        reference="Carlini et al. (2022), Membership inference attacks from first principles; Hayes et al. "
        "(2024), Inexact unlearning needs more careful evaluations to avoid a false sense of privacy",
        idea="Models retrained with and without the removed rows show what a row looks like to those who "
        "saw it and those who did not, and the patched model is asked which of them it resembles.",
        formula=r"$s_i = \log N(\phi_i;\, \mu^{in}_i, \sigma_{in}) - \log N(\phi_i;\, \mu^{out}_i, "
        r"\sigma_{out})$ with $\phi_i = \log \tfrac{p_i}{1 - p_i}$ of the row's label, and an AUC of .5 "
        "where patched and retrained models cannot be told apart.",
        needs="It needs classes, a trainer, and at least four retrainings with the rows and four without.",
        cost="It takes sixteen trainings by default: half of them serve every plan, the others all methods "
        "on the same one.",
        misleads="It is evidence about these rows, this attack and these references and never proof, and an "
        "AUC far below .5 is no success either: the model was pushed past retraining, or broken.",
    ),
    "five_terms": MethodText(
        label="trust in influence (five terms)",
        reference="Bae, Ng, Lo, Ghassemi & Grosse (2022), If influence functions are the answer, then what "
        "is the question?",
        idea="From retraining without the rows to the influence step one thing changes at a time, so that "
        "the gap between the two answers falls into five parts with names.",
        formula=r"$\Delta C_{influence} - \Delta C_{retrained}$ is the sum of warm start, proximity, "
        "non-convergence, linearisation and solver.",
        needs="It needs a trainer and a small model, of at most 4,000 parameters and 5,000 training rows.",
        cost="It takes a retraining, three minimisations of nearly the same objective, and a solve to ten "
        "digits.",
        misleads="Large terms of opposite sign can add up to a small gap, and the first term holds the noise "
        "of one training's seed, so read the terms and not only their sum.",
    ),
    "linear_datamodeling": MethodText(
        label="linear datamodeling score (LDS)",
        reference="Ilyas, Park, Engstrom, Leclerc & Madry (2022), Datamodels: predicting predictions from "
        "training data; Park, Georgiev, Ilyas, Leclerc & Madry (2023), TRAK: attributing model behavior at "
        "scale",
        idea="The model is retrained on many random halves of the rows, and a method is good if the scores "
        "of the rows left out, simply added up, put these models in the right order.",
        formula=r"$\rho\left(C(\theta_S),\, \sum_{j \notin S} v_j\right)$, the Spearman correlation over "
        r"random halves $S$, with scores $v_j$ and the model $\theta_S$ retrained on $S$.",
        needs="It needs a trainer, and methods that score the rows for a criterion.",
        cost="It takes two trainings on each of 32 halves by default, which serve all methods at once.",
        misleads="Halves are far from the few rows that a patch removes, and noise of training keeps even "
        "perfect scores below 1, so compare methods with each other and with the limit that this noise "
        "sets.",
    ),
}
