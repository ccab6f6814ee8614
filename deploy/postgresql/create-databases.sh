#!/bin/sh
# Run once by the postgres image, on an empty data folder: one database and one owner for each service.
set -eu
create() {
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --set name="$1" --set password="$2" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" ENCODING 'UTF8';
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}
create auth "$AUTH_DATABASE_PASSWORD"
create notify "$NOTIFY_DATABASE_PASSWORD"
