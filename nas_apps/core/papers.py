"""The papers behind the methods, by their arXiv id."""

from __future__ import annotations

PAPERS: dict[str, str] = {
    "1602.02068": "A. F. T. Martins, R. F. Astudillo. From Softmax to Sparsemax: A Sparse Model of Attention and "
    "Multi-Label Classification. ICML 2016",
    "1806.09055": "H. Liu, K. Simonyan, Y. Yang. DARTS: Differentiable Architecture Search. ICLR 2019",
    "1810.12890": "G. Ghiasi, T.-Y. Lin, Q. V. Le. DropBlock: A Regularization Method for Convolutional Networks. "
    "NeurIPS 2018",
    "1812.00332": "H. Cai, L. Zhu, S. Han. ProxylessNAS: Direct Neural Architecture Search on Target Task and "
    "Hardware. ICLR 2019",
    "1812.09926": "S. Xie, H. Zheng, C. Liu, L. Lin. SNAS: Stochastic Neural Architecture Search. ICLR 2019",
    "1902.07638": "L. Li, A. Talwalkar. Random Search and Reproducibility for Neural Architecture Search. UAI 2019",
    "1903.03793": "W. Shao et al. SSN: Learning Sparse Switchable Normalization via SparsestMax. CVPR 2019",
    "1904.12760": "X. Chen, L. Xie, J. Wu, Q. Tian. Progressive Differentiable Architecture Search. ICCV 2019",
    "1907.05737": "Y. Xu et al. PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search. "
    "ICLR 2020",
    "1909.09656": "A. Zela et al. Understanding and Robustifying Differentiable Architecture Search. ICLR 2020",
    "1910.04465": "X. Dong, Y. Yang. Searching for a Robust Neural Architecture in Four GPU Hours. CVPR 2019",
    "1911.05704": "S. Green, C. M. Vineyard, R. Helinski, C. K. Koc. RAPDARTS: Resource-Aware Progressive "
    "Differentiable Architecture Search. IJCNN 2020",
    "1911.12126": "X. Chu, T. Zhou, B. Zhang, J. Li. Fair DARTS: Eliminating Unfair Advantages in Differentiable "
    "Architecture Search. ECCV 2020",
    "2001.06392": "Y. Xu et al. Latency-Aware Differentiable Neural Architecture Search. 2020",
    "2002.05283": "X. Chen, C.-J. Hsieh. Stabilizing Differentiable Architecture Search via Perturbation-based "
    "Regularization. ICML 2020",
    "2006.10355": "X. Chen, R. Wang, M. Cheng, X. Tang, C.-J. Hsieh. DrNAS: Dirichlet Neural Architecture Search. "
    "ICLR 2021",
    "2009.01027": "X. Chu et al. DARTS-: Robustly Stepping out of Performance Collapse Without Indicators. ICLR 2021",
    "2011.11233": "X. Wang et al. ROME: Robustifying Memory-Efficient NAS via Topology Disentanglement and Gradient "
    "Accumulation. ICCV 2023",
    "2101.06658": "Y. Wu et al. Trilevel Neural Architecture Search for Efficient Single Image Super-Resolution. 2021",
    "2106.02229": "Y. Miao, X. Song et al. Differentiable Architecture Search for Reinforcement Learning. AutoML-Conf "
    "2022",
    "2107.04324": "H. Tan et al. Mutually-aware Sub-Graphs Differentiable Architecture Search. 2021",
    "2108.08128": "P. Hou, Y. Jin, Y. Chen. Single-DARTS: Towards Stable Architecture Search. ICCVW 2021",
    "2108.09996": "J.-W. Hsieh et al. MS-DARTS: Mean-Shift Based Differentiable Architecture Search. 2021",
}
