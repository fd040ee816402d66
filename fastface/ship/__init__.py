"""RUN -> what is deployed: ONNX files, checked and calibrated, with their cards."""
