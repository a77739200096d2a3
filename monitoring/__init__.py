"""Where numbers of many processes go (`hub`), and what is made of them: dashboards, rules, and their proof."""
