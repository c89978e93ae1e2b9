"""The methods that give every training row a score, lower means more suspicious; by key of ``VALUATIONS``.

Numbers are those of benchmarks/RESULTS.md and docs/experiments.md: one thread, digits with 1 000 rows of
which a tenth has a flipped label, MNIST with 10 000 rows and a network of 57 000 parameters.
"""

from puma_dash.ui.method_texts.base import MethodText

VALUATIONS = {
    "psi": MethodText(
        label="psi (influence on the criterion)",
        reference="Wu, Hashemi & Srinivasa (2022), PUMA: performance unchanged model augmentation",
        idea="psi estimates how the one number you care about would change if training had never seen the "
        "row: a statement on this model and this criterion, not on the row alone.",
        formula=r"$\psi_j = \nabla C^\top B^{-1} \nabla\ell_j$, so that removing row $j$ changes the "
        r"criterion by about $\psi_j / n$.",
        needs="It needs the trained model, the loss and weight decay it was trained with, and evaluation "
        "rows for the criterion, but no records of training and no retraining.",
        cost="One solve with the curvature and one pass over the training rows score all of them: a tenth "
        "of a second on digits, about ten seconds on MNIST.",
        misleads="It is not the best finder of wrong labels (AUC .91 on digits, where the plain loss has "
        ".995), and as a straight line it understates what large groups of rows do together.",
    ),
    "influence": MethodText(
        label="influence functions",
        reference="Koh & Liang (2017), Understanding black-box predictions via influence functions",
        idea="Influence functions estimate how the mean loss on the evaluation rows would change without a "
        "training row, which is psi with the plain loss as its criterion.",
        formula=r"$\nabla L^\top B^{-1} \nabla\ell_j$ with $L$ the mean loss on the rows of the criterion, "
        "in the sign of the released code: rows above 0 help.",
        needs="It needs the trained model, its loss and weight decay, and evaluation rows, of which it takes "
        "the plain loss whatever the criterion measures.",
        cost="By conjugate gradients it costs what psi costs; the stochastic solver LiSSA took more than "
        "twenty times as long on digits and found no more.",
        misleads="It was derived at the minimum of a convex loss, and on a network its amounts follow a "
        "damped local question instead of retraining from scratch, so trust the order before the amounts.",
    ),
    "self_influence": MethodText(
        label="self-influence, negated",
        reference="Koh & Liang (2017), Understanding black-box predictions via influence functions",
        idea="A row whose own loss would rise steeply if the model had not seen it is held by memory alone, "
        "as wrong labels are, and the rarest right rows.",
        formula=r"$-\nabla\ell_j^\top B^{-1} \nabla\ell_j$: without row $j$ its own loss rises by about this "
        "size, divided by $n$.",
        needs="It needs the trained model, its loss and weight decay, and the training rows, but no "
        "criterion, no evaluation rows and no records.",
        cost="It takes one forward and one backward pass over the rows, for large models with a sample of "
        "gradients in place of the curvature: .3 seconds on digits, six on MNIST.",
        misleads="An unusual but correct row scores like a wrong label, and on large models the values "
        "come out about a third too large although their order holds.",
    ),
    "tracin": MethodText(
        label="TracIn (checkpoints of training)",
        reference="Pruthi et al. (2020), Estimating training data influence by tracing gradient descent",
        idea="TracIn goes through training again in snapshots and adds up how far steps on a row would have "
        "moved the criterion at each of them.",
        formula=r"$\sum_k \eta_k \nabla C(\theta_k)^\top \nabla\ell_j(\theta_k)$ over the checkpoints "
        r"$\theta_k$ with their learning rates $\eta_k$.",
        needs="It needs checkpoints of training with their learning rates, which the training recorder "
        "keeps, and evaluation rows for the criterion.",
        cost="It takes a gradient of the criterion and a pass over the training rows for each checkpoint, "
        "without any solve: .04 seconds on digits with ten of them.",
        misleads="It tells what rows did on the way, not what the finished model would be without them, and "
        "leaves out what momentum or Adam do to a step: on digits it found flips with an AUC of .74 only.",
    ),
    "gradient_dot": MethodText(
        label="gradient dot product",
        reference="Charpiat et al. (2019), Input similarity from the neural network perspective",
        idea="A row helps where a step that lowers its own loss would lower the criterion too, which is to "
        "say where both gradients point the same way.",
        formula=r"$\nabla C^\top \nabla\ell_j$, which is psi without the inverse curvature: its limit for "
        "large damping, up to scale.",
        needs="It needs the trained model, its loss, and evaluation rows for the criterion, nothing else.",
        cost="One gradient and one pass over the training rows, a hundredth of a second on digits, make it "
        "the cheapest score that looks at the criterion.",
        misleads="Rows with large gradients drown all others, the values predict no change in any unit, and "
        "of all methods measured on digits only chance found fewer flips (AUC .71).",
    ),
    "representer": MethodText(
        label="representer points",
        reference="Yeh, Kim, Yen & Ravikumar (2018), Representer point selection for explaining deep "
        "networks",
        idea="The output of the last layer is a sum over training rows, and a row that must push hard to "
        "hold up its own output does not fit its label.",
        formula=r"$-\lVert\alpha_j\rVert\, f_j^\top f_j$ with $\alpha_j = -\tfrac{1}{\mu n}\, \partial\ell_j "
        r"/ \partial z_j$, where $f_j$ enters the last layer, $z_j$ leaves it, and $\mu$ is the weight decay "
        "that it is refitted with.",
        needs="It needs a model with a linear last layer, and the labels it is refitted to, but neither a "
        "criterion nor evaluation rows.",
        cost="It takes one pass for the features and the fit of one convex layer: .06 seconds on digits.",
        misleads="It looks at the refitted last layer only, so that what the layers below have memorised "
        "goes unseen, and though few methods find flips better (AUC .997) it ignores your criterion.",
    ),
    "knn_shapley": MethodText(
        label="KNN-Shapley",
        reference="Jia et al. (2019), Efficient task-specific data valuation for nearest neighbor algorithms",
        idea="Each evaluation row lets its nearest training rows vote on its label, and every training row "
        "is paid its fair share of the right votes, exactly.",
        formula=r"$s_i = s_{i+1} + \tfrac{\min(K, i)}{K i} \left([y_i = y] - [y_{i+1} = y]\right)$ with the "
        r"training rows sorted from near to far, $s_n = [y_n = y] / \max(K, n)$, and the mean over "
        "evaluation rows with label $y$.",
        needs="It needs classes, evaluation rows whose labels can be trusted, and features to compare rows "
        "by, which your model lends.",
        cost="It sorts the training rows once for every evaluation row and trains nothing: .06 seconds on "
        "digits.",
        misleads="It judges neighbourhoods and not your model: among poor features it blames the wrong rows, "
        "and a wrong label in validation makes its rightly labelled neighbours look harmful.",
    ),
    "data_shapley_tmc": MethodText(
        label="Data Shapley (truncated Monte Carlo)",
        reference="Ghorbani & Zou (2019), Data Shapley: equitable valuation of data for machine learning",
        idea="The rows join one by one in random order, and each is paid what it adds on average to a model "
        "of those before it, the only division that meets Shapley's rules of fairness.",
        formula=r"$\phi_j = \mathbb{E}_\pi \left[V(\pi_{<j} \cup \{j\}) - V(\pi_{<j})\right]$ over random "
        r"orders $\pi$, each left once $V$ has stayed within 1 % of its full value for more than five rows.",
        needs="It needs evaluation rows whose labels can be trusted, and a model to train over and over: a "
        "linear one on the features of yours, or your own trainer.",
        cost="It takes thousands of retrainings: 20 orders with the linear model took half a minute on "
        "digits, and 200 are the default.",
        misleads="With few orders it is mostly noise, rows late in an order are paid nothing (20 orders "
        "found flips with an AUC of .82), and by default the model it values rows for is not yours.",
    ),
    "data_shapley_g": MethodText(
        label="Data Shapley (gradient)",
        reference="Ghorbani & Zou (2019), Data Shapley: equitable valuation of data for machine learning",
        idea="Retraining is replaced by one epoch in which a fresh model takes one step per row, in random "
        "order, and each row is paid what its own step adds.",
        formula=r"$\phi_j = \mathbb{E}_\pi \left[V(\theta_t) - V(\theta_{t-1})\right]$ with $\theta_t = "
        r"\theta_{t-1} - \eta \nabla\ell_j(\theta_{t-1})$, where $t$ is the place of row $j$ in the order "
        r"$\pi$.",
        needs="It needs evaluation rows whose labels can be trusted, and a model whose layers can be drawn "
        "anew; the learning rate is searched for unless you give one.",
        cost="It goes through one epoch of single rows per order, twenty orders side by side: 20 orders took "
        "24 seconds on digits, and 100 are the default.",
        misleads="What a row does to a fresh model in its first epoch is not what it does to the finished "
        "one, and after 20 orders flips were found with an AUC of .79.",
    ),
    "dvrl": MethodText(
        label="DVRL (reinforcement learning)",
        reference="Yoon, Arik & Pfister (2020), Data valuation using reinforcement learning",
        idea="A small network learns which rows to train on, rewarded whenever the model of its choice does "
        "better on the evaluation rows than of late.",
        formula=r"$h_j = h(x_j, y_j, |y_j - \hat y_j|) \in (0, 1)$, learned by steps along ${(V - \bar V)}\, "
        r"\nabla \sum_j \left[s_j \log h_j + (1 - s_j) \log(1 - h_j)\right]$, where $\hat y_j$ is what a "
        r"model of the evaluation rows says, $s_j$ is 1 with probability $h_j$, else 0, and $\bar V$ is what "
        r"$V$ was of late.",
        needs="It needs evaluation rows whose labels can be trusted, and features of your model, on which a "
        "linear predictor is fitted again and again.",
        cost="It takes a thousand fits of a linear model by default: 13 seconds on digits.",
        misleads="It is a search by chance that may end in keeping nearly every row or hardly any, and its "
        "answers differ with the seed (AUC .90 ± .07 on digits).",
    ),
    "leave_one_out": MethodText(
        label="leave-one-out retraining",
        reference="Cook & Weisberg (1982), Residuals and influence in regression",
        idea="Train without the row and look: this is what psi predicts, found by brute force.",
        formula=r"$n \left[C(\theta_{-j}) - C(\theta)\right]$ with both models trained afresh from the same "
        r"start and seed, $\theta_{-j}$ without row $j$.",
        needs="It needs the trainer of the project, or our recipe in its place, and a model small enough to "
        "be trained once for every row.",
        cost="It takes n + 1 whole trainings, and is refused where they would last longer than ten minutes, "
        "unless you allow more.",
        misleads="It is exact for convex models, but on networks one missing row stirs up so much noise of "
        "training that in public benchmarks no method agreed with it: judge no score by it there.",
    ),
    "confident_learning": MethodText(
        label="confident learning (cross-validated)",
        reference="Northcutt, Jiang & Chuang (2021), Confident learning",
        idea="Models that have not seen a row say what they think of its label, and a label that they find "
        "improbable is probably wrong.",
        formula=r"$p(y_j \mid x_j;\, \theta_{-F(j)})$, the probability of the row's label by a model that "
        r"was trained without its fold $F(j)$.",
        needs="It needs classes and the trainer of the project, or our recipe in its place, but neither a "
        "criterion nor evaluation rows.",
        cost="It takes five trainings by default: seven seconds on digits.",
        misleads="Difficult and rare rows look improbable too, an error that all folds share looks right, "
        "and a wrong label need not be one that hurts your criterion.",
    ),
    "loss": MethodText(
        label="training loss, negated",
        reference="Northcutt, Jiang & Chuang (2021), Confident learning",
        idea="The rows that the model fits worst come first, because a wrong label is hard to fit.",
        formula=r"$-\ell_j$, here without the weights of rows or classes.",
        needs="It needs the trained model and its training rows, nothing else.",
        cost="It takes one forward pass, a millisecond on digits.",
        misleads="A model that has learned its rows by heart fits wrong labels too, and then this score is "
        "blind; as long as it has not, few methods find flips better (AUC .995 on digits).",
    ),
    "random": MethodText(
        label="random",
        reference="the floor of every comparison",
        idea="The rows come in random order: the floor that a method must clear before its list is worth "
        "reading.",
        formula=r"$u_j$ drawn evenly between 0 and 1.",
        needs="It needs a seed.",
        cost="It costs next to nothing.",
        misleads="It misleads where it is left out, since any curve looks good without its floor, and where "
        "so few rows are inspected that luck alone finds some errors.",
    ),
}
