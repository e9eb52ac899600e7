"""What rationales hold, and whether labels have leaked into them."""
