"""Encoders: networks that turn observations into states, as vectors that learners take.

`encoder` has the base class, `convolution` one of images, `images` what agents do with images
before; `configs` imports no torch.
"""
