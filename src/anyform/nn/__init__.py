"""Network blocks and weight formats that two models or more use."""
