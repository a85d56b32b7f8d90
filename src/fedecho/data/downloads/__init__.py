"""Archives that are no data sets: what tokenizers, encoders, models and delay models need. One file each."""
