"""The paper's comparison (Li et al., ICCV 2023), all systems on the same pictures: what ``paper_table.py`` runs.

settings.py      how much of everything: small, quick, hour, night
tasks.py         pictures and the question asked of each: what every system is given
shifts.py        the same test pictures as they are after a corruption, or another collection of digits
questions.py     pictures of the model ``shapes`` with captions to choose from
diffusion.py     the diffusion classifier
networks.py      ResNet and ViT, and their training
synthetic.py     the ResNet that was trained on the diffusion model's own samples
samples.py       those samples: DDIM, by diffusers
features.py      a linear probe on the diffusion model's activations
contrastive.py   CLIP, SigLIP, OpenCLIP
systems.py       which systems there are and what each is asked
cells.py         a folder of answers: a finished one is not made again
robustness.py    shares, intervals, effective robustness
table.py         the record as Markdown
figures.py       the record as pictures
"""
