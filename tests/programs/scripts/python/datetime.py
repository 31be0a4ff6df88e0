import datetime
print(datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc).timestamp(), datetime.date.fromisoformat('2024-12-31').isocalendar())
