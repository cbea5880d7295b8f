"""What a data owner does with folders of images: protect, recover, audit."""
