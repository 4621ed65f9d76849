from jobmon.app import create_app

app = create_app()
