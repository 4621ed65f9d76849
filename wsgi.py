from jobmon import create_app

app = create_app()
