"""`python kserve_server.py PORT`: KServe's own server with score.py's work in a Model."""

import sys

import score
from kserve import Model, ModelServer


class Diabetes(Model):
    def load(self):
        score.init()
        self.ready = True
        return True

    def predict(self, payload, headers=None):
        return {"predictions": score.predict(payload["instances"])}


if __name__ == "__main__":
    model = Diabetes("diabetes")
    model.load()
    ModelServer(http_port=int(sys.argv[1]), workers=1, enable_grpc=False).start([model])
