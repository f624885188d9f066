"""Speed, load time and memory of a converted network beside other engines that run the same network."""
