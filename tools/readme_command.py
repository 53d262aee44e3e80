"""Print one of the README's two shell commands, so that .ci/run runs the text itself."""

import re
import sys
from pathlib import Path

demo, test = re.findall(r"```sh\n(.*?)```", Path("README.md").read_text(), flags=re.DOTALL)
print({"demo": demo, "test": test}[sys.argv[1]].strip())
