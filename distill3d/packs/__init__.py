"""Style packs: what a run trained, small enough to pass on, with a card; made, checked, pushed and pulled."""
