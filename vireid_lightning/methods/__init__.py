"""The field's methods, one LightningModule a file."""
