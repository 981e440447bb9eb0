"""What the methods paragraph may cite, as BibTeX entries by their keys."""

REFERENCES = {
    "agarwal2021deep": """@inproceedings{agarwal2021deep,
  title     = {Deep Reinforcement Learning at the Edge of the Statistical Precipice},
  author    = {Agarwal, Rishabh and Schwarzer, Max and Castro, Pablo Samuel and
               Courville, Aaron C. and Bellemare, Marc G.},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {34},
  year      = {2021}
}""",
    "bellemare2017distributional": """@inproceedings{bellemare2017distributional,
  title     = {A Distributional Perspective on Reinforcement Learning},
  author    = {Bellemare, Marc G. and Dabney, Will and Munos, R{\\'e}mi},
  booktitle = {International Conference on Machine Learning},
  year      = {2017}
}""",
    "bradbury2018jax": """@misc{bradbury2018jax,
  title  = {{JAX}: composable transformations of {Python+NumPy} programs},
  author = {Bradbury, James and Frostig, Roy and Hawkins, Peter and Johnson, Matthew James and
            Leary, Chris and Maclaurin, Dougal and Necula, George and Paszke, Adam and
            VanderPlas, Jake and Wanderman-Milne, Skye and Zhang, Qiao},
  year   = {2018}
}""",
    "cesabianchi2017boltzmann": """@inproceedings{cesabianchi2017boltzmann,
  title     = {{Boltzmann} Exploration Done Right},
  author    = {Cesa-Bianchi, Nicol{\\`o} and Gentile, Claudio and Lugosi, G{\\'a}bor and
               Neu, Gergely},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {30},
  year      = {2017}
}""",
    "dabney2018distributional": """@inproceedings{dabney2018distributional,
  title     = {Distributional Reinforcement Learning with Quantile Regression},
  author    = {Dabney, Will and Rowland, Mark and Bellemare, Marc G. and Munos, R{\\'e}mi},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume    = {32},
  year      = {2018}
}""",
    "dabney2018implicit": """@inproceedings{dabney2018implicit,
  title     = {Implicit Quantile Networks for Distributional Reinforcement Learning},
  author    = {Dabney, Will and Ostrovski, Georg and Silver, David and Munos, R{\\'e}mi},
  booktitle = {International Conference on Machine Learning},
  year      = {2018}
}""",
    "dabney2021temporally": """@inproceedings{dabney2021temporally,
  title     = {Temporally-Extended {$\\epsilon$}-Greedy Exploration},
  author    = {Dabney, Will and Ostrovski, Georg and Barreto, Andr{\\'e}},
  booktitle = {International Conference on Learning Representations},
  year      = {2021}
}""",
    "efron1993introduction": """@book{efron1993introduction,
  title     = {An Introduction to the Bootstrap},
  author    = {Efron, Bradley and Tibshirani, Robert J.},
  publisher = {Chapman and Hall},
  year      = {1993}
}""",
    "fortunato2018noisy": """@inproceedings{fortunato2018noisy,
  title     = {Noisy Networks for Exploration},
  author    = {Fortunato, Meire and Azar, Mohammad Gheshlaghi and Piot, Bilal and others},
  booktitle = {International Conference on Learning Representations},
  year      = {2018}
}""",
    "fujimoto2018addressing": """@inproceedings{fujimoto2018addressing,
  title     = {Addressing Function Approximation Error in Actor-Critic Methods},
  author    = {Fujimoto, Scott and van Hoof, Herke and Meger, David},
  booktitle = {International Conference on Machine Learning},
  year      = {2018}
}""",
    "gallici2025simplifying": """@inproceedings{gallici2025simplifying,
  title     = {Simplifying Deep Temporal Difference Learning},
  author    = {Gallici, Matteo and Fellows, Mattie and Ellis, Benjamin and Pou, Bartomeu and
               Masmitja, Ivan and Foerster, Jakob Nicolaus and Martin, Mario},
  booktitle = {International Conference on Learning Representations},
  year      = {2025}
}""",
    "holm1979simple": """@article{holm1979simple,
  title   = {A simple sequentially rejective multiple test procedure},
  author  = {Holm, Sture},
  journal = {Scandinavian Journal of Statistics},
  volume  = {6},
  number  = {2},
  pages   = {65--70},
  year    = {1979}
}""",
    "horgan2018distributed": """@inproceedings{horgan2018distributed,
  title     = {Distributed Prioritized Experience Replay},
  author    = {Horgan, Dan and Quan, John and Budden, David and Barth-Maron, Gabriel and
               Hessel, Matteo and van Hasselt, Hado and Silver, David},
  booktitle = {International Conference on Learning Representations},
  year      = {2018}
}""",
    "kaplan1958nonparametric": """@article{kaplan1958nonparametric,
  title   = {Nonparametric Estimation from Incomplete Observations},
  author  = {Kaplan, E. L. and Meier, Paul},
  journal = {Journal of the American Statistical Association},
  volume  = {53},
  number  = {282},
  pages   = {457--481},
  year    = {1958}
}""",
    "lan2020maxmin": """@inproceedings{lan2020maxmin,
  title     = {Maxmin {Q}-learning: Controlling the Estimation Bias of {Q}-learning},
  author    = {Lan, Qingfeng and Pan, Yangchen and Fyshe, Alona and White, Martha},
  booktitle = {International Conference on Learning Representations},
  year      = {2020}
}""",
    "lange2022gymnax": """@misc{lange2022gymnax,
  title  = {{gymnax}: A {JAX}-based Reinforcement Learning Environment Library},
  author = {Lange, Robert Tjarko},
  year   = {2022}
}""",
    "mnih2015human": """@article{mnih2015human,
  title   = {Human-level control through deep reinforcement learning},
  author  = {Mnih, Volodymyr and Kavukcuoglu, Koray and Silver, David and others},
  journal = {Nature},
  volume  = {518},
  number  = {7540},
  pages   = {529--533},
  year    = {2015}
}""",
    "montielolea2019simultaneous": """@article{montielolea2019simultaneous,
  title   = {Simultaneous confidence bands: {Theory}, implementation, and an application to
             {SVARs}},
  author  = {Montiel Olea, Jos{\\'e} Luis and Plagborg-M{\\o}ller, Mikkel},
  journal = {Journal of Applied Econometrics},
  volume  = {34},
  number  = {1},
  pages   = {1--17},
  year    = {2019}
}""",
    "osband2016deep": """@inproceedings{osband2016deep,
  title     = {Deep Exploration via Bootstrapped {DQN}},
  author    = {Osband, Ian and Blundell, Charles and Pritzel, Alexander and Van Roy, Benjamin},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {29},
  year      = {2016}
}""",
    "pohlen2018observe": """@misc{pohlen2018observe,
  title  = {Observe and Look Further: Achieving Consistent Performance on {Atari}},
  author = {Pohlen, Tobias and Piot, Bilal and Hester, Todd and others},
  note   = {arXiv:1805.11593},
  year   = {2018}
}""",
    "polyak1992acceleration": """@article{polyak1992acceleration,
  title   = {Acceleration of Stochastic Approximation by Averaging},
  author  = {Polyak, Boris T. and Juditsky, Anatoli B.},
  journal = {SIAM Journal on Control and Optimization},
  volume  = {30},
  number  = {4},
  pages   = {838--855},
  year    = {1992}
}""",
    "schaul2016prioritized": """@inproceedings{schaul2016prioritized,
  title     = {Prioritized Experience Replay},
  author    = {Schaul, Tom and Quan, John and Antonoglou, Ioannis and Silver, David},
  booktitle = {International Conference on Learning Representations},
  year      = {2016}
}""",
    "tukey1963less": """@article{tukey1963less,
  title   = {Less Vulnerable Confidence and Significance Procedures for Location Based on a Single
             Sample: Trimming/Winsorization 1},
  author  = {Tukey, John W. and McLaughlin, Donald H.},
  journal = {Sankhy{\\=a}: The Indian Journal of Statistics, Series A},
  volume  = {25},
  number  = {3},
  pages   = {331--352},
  year    = {1963}
}""",
    "vanhasselt2016deep": """@inproceedings{vanhasselt2016deep,
  title     = {Deep Reinforcement Learning with Double {Q}-learning},
  author    = {van Hasselt, Hado and Guez, Arthur and Silver, David},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume    = {30},
  number    = {1},
  year      = {2016}
}""",
    "vanseijen2009theoretical": """@inproceedings{vanseijen2009theoretical,
  title     = {A Theoretical and Empirical Analysis of {Expected Sarsa}},
  author    = {van Seijen, Harm and van Hasselt, Hado and Whiteson, Shimon and Wiering, Marco},
  booktitle = {IEEE Symposium on Adaptive Dynamic Programming and Reinforcement Learning},
  year      = {2009}
}""",
    "vieillard2020munchausen": """@inproceedings{vieillard2020munchausen,
  title     = {Munchausen Reinforcement Learning},
  author    = {Vieillard, Nino and Pietquin, Olivier and Geist, Matthieu},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020}
}""",
    "wang2016dueling": """@inproceedings{wang2016dueling,
  title     = {Dueling Network Architectures for Deep Reinforcement Learning},
  author    = {Wang, Ziyu and Schaul, Tom and Hessel, Matteo and van Hasselt, Hado and
               Lanctot, Marc and de Freitas, Nando},
  booktitle = {International Conference on Machine Learning},
  year      = {2016}
}""",
    "watkins1992q": """@article{watkins1992q,
  title   = {Q-learning},
  author  = {Watkins, Christopher J. C. H. and Dayan, Peter},
  journal = {Machine Learning},
  volume  = {8},
  pages   = {279--292},
  year    = {1992}
}""",
}
