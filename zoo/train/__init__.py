"""Training of one world's tokenizer, CLIP, VAE and UNet, in resumable stages."""
