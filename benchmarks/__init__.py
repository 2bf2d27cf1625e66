"""Speed and memory of layers and of training steps, next to what the machine could do at best."""
