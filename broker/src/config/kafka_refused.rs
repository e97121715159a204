//! What Kafka's brokers can be told and ours cannot, with the reason in a sentence.

/// Reasons, each with the names that it is for.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "there are no share groups",
        "group.share.assignment.interval.ms group.share.assignors group.share.delivery.count.limit \
         group.share.heartbeat.interval.ms group.share.initialize.retry.interval.ms \
         group.share.max.assignment.interval.ms group.share.max.delivery.count.limit \
         group.share.max.heartbeat.interval.ms group.share.max.partition.max.record.locks \
         group.share.max.record.lock.duration.ms group.share.max.session.timeout.ms \
         group.share.max.share.sessions group.share.max.size group.share.min.assignment.interval.ms \
         group.share.min.delivery.count.limit group.share.min.heartbeat.interval.ms \
         group.share.min.partition.max.record.locks group.share.min.record.lock.duration.ms \
         group.share.min.session.timeout.ms group.share.partition.max.record.locks \
         group.share.persister.class.name group.share.record.lock.duration.ms group.share.session.timeout.ms \
         share.coordinator.append.linger.ms share.coordinator.cached.buffer.max.bytes \
         share.coordinator.cold.partition.snapshot.interval.ms share.coordinator.load.buffer.size \
         share.coordinator.snapshot.update.records.per.snapshot share.coordinator.state.topic.compression.codec \
         share.coordinator.state.topic.min.isr share.coordinator.state.topic.num.partitions \
         share.coordinator.state.topic.prune.interval.ms share.coordinator.state.topic.replication.factor \
         share.coordinator.state.topic.segment.bytes share.coordinator.threads share.coordinator.write.timeout.ms \
         share.fetch.purgatory.purge.interval.requests",
    ),
    (
        "there are no streams groups",
        "group.streams.assignment.interval.ms group.streams.heartbeat.interval.ms \
         group.streams.initial.rebalance.delay.ms group.streams.max.assignment.interval.ms \
         group.streams.max.heartbeat.interval.ms group.streams.max.session.timeout.ms group.streams.max.size \
         group.streams.max.standby.replicas group.streams.min.assignment.interval.ms \
         group.streams.min.heartbeat.interval.ms group.streams.min.session.timeout.ms \
         group.streams.num.standby.replicas group.streams.session.timeout.ms",
    ),
    (
        "what members are to have is decided with each change, and expressions are looked at with each",
        "group.consumer.assignment.interval.ms group.consumer.max.assignment.interval.ms \
         group.consumer.min.assignment.interval.ms group.consumer.regex.refresh.interval.ms",
    ),
    ("both protocols are served", "group.coordinator.rebalance.protocols"),
    (
        "what groups decide while an append is under way is appended next, and read back in pieces of fixed size",
        "group.coordinator.append.linger.ms group.coordinator.background.threads \
         group.coordinator.cached.buffer.max.bytes group.coordinator.threads offsets.load.buffer.size",
    ),
    (
        "there are no transactions yet",
        "add.partitions.to.txn.retry.backoff.max.ms add.partitions.to.txn.retry.backoff.ms \
         transaction.abort.timed.out.transaction.cleanup.interval.ms transaction.max.timeout.ms \
         transaction.partition.verification.enable transaction.remove.expired.transaction.cleanup.interval.ms \
         transaction.state.log.load.buffer.size transaction.state.log.min.isr \
         transaction.state.log.num.partitions transaction.state.log.replication.factor \
         transaction.state.log.segment.bytes transaction.two.phase.commit.enable transactional.id.expiration.ms",
    ),
    (
        "connections are neither encrypted nor authenticated yet",
        "authorizer.class.name connection.failed.authentication.delay.ms connections.max.reauth.ms \
         delegation.token.expiry.check.interval.ms delegation.token.expiry.time.ms \
         delegation.token.max.lifetime.ms delegation.token.secret.key early.start.listeners \
         inter.broker.listener.name listener.security.protocol.map principal.builder.class \
         sasl.client.callback.handler.class sasl.enabled.mechanisms sasl.jaas.config sasl.kerberos.kinit.cmd \
         sasl.kerberos.min.time.before.relogin sasl.kerberos.principal.to.local.rules sasl.kerberos.service.name \
         sasl.kerberos.ticket.renew.jitter sasl.kerberos.ticket.renew.window.factor \
         sasl.login.callback.handler.class sasl.login.class sasl.login.connect.timeout.ms \
         sasl.login.read.timeout.ms sasl.login.refresh.buffer.seconds sasl.login.refresh.min.period.seconds \
         sasl.login.refresh.window.factor sasl.login.refresh.window.jitter sasl.login.retry.backoff.max.ms \
         sasl.login.retry.backoff.ms sasl.mechanism.controller.protocol sasl.mechanism.inter.broker.protocol \
         sasl.oauthbearer.assertion.algorithm sasl.oauthbearer.assertion.claim.aud \
         sasl.oauthbearer.assertion.claim.exp.seconds sasl.oauthbearer.assertion.claim.iss \
         sasl.oauthbearer.assertion.claim.jti.include sasl.oauthbearer.assertion.claim.nbf.seconds \
         sasl.oauthbearer.assertion.claim.sub sasl.oauthbearer.assertion.file \
         sasl.oauthbearer.assertion.private.key.file sasl.oauthbearer.assertion.private.key.passphrase \
         sasl.oauthbearer.assertion.template.file sasl.oauthbearer.client.credentials.client.id \
         sasl.oauthbearer.client.credentials.client.secret sasl.oauthbearer.clock.skew.seconds \
         sasl.oauthbearer.expected.audience sasl.oauthbearer.expected.issuer \
         sasl.oauthbearer.jwks.endpoint.refresh.ms sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms \
         sasl.oauthbearer.jwks.endpoint.retry.backoff.ms sasl.oauthbearer.jwks.endpoint.url \
         sasl.oauthbearer.jwt.retriever.class sasl.oauthbearer.jwt.validator.class sasl.oauthbearer.scope \
         sasl.oauthbearer.scope.claim.name sasl.oauthbearer.sub.claim.name sasl.oauthbearer.token.endpoint.url \
         sasl.server.callback.handler.class sasl.server.max.receive.size security.inter.broker.protocol \
         security.providers ssl.allow.dn.changes ssl.allow.san.changes ssl.cipher.suites ssl.client.auth \
         ssl.enabled.protocols ssl.endpoint.identification.algorithm ssl.engine.factory.class ssl.key.password \
         ssl.keymanager.algorithm ssl.keystore.certificate.chain ssl.keystore.key ssl.keystore.location \
         ssl.keystore.password ssl.keystore.type ssl.principal.mapping.rules ssl.protocol ssl.provider \
         ssl.secure.random.implementation ssl.trustmanager.algorithm ssl.truststore.certificates \
         ssl.truststore.location ssl.truststore.password ssl.truststore.type",
    ),
    (
        "there are no quotas",
        "alter.log.dirs.replication.quota.window.num alter.log.dirs.replication.quota.window.size.seconds \
         client.quota.callback.class controller.quota.window.num controller.quota.window.size.seconds \
         max.connection.creation.rate max.connections.per.ip.overrides quota.window.num quota.window.size.seconds \
         remote.log.manager.copy.quota.window.num remote.log.manager.copy.quota.window.size.seconds \
         remote.log.manager.fetch.quota.window.num remote.log.manager.fetch.quota.window.size.seconds \
         replication.quota.window.num replication.quota.window.size.seconds",
    ),
    (
        "there is no tiered storage",
        "follower.fetch.last.tiered.offset.enable remote.fetch.max.wait.ms remote.list.offsets.request.timeout.ms \
         remote.log.index.file.cache.total.size.bytes remote.log.index.file.cache.ttl.ms \
         remote.log.manager.copier.thread.pool.size remote.log.manager.copy.max.bytes.per.second \
         remote.log.manager.expiration.thread.pool.size remote.log.manager.fetch.max.bytes.per.second \
         remote.log.manager.follower.thread.pool.size remote.log.manager.task.interval.ms \
         remote.log.manager.task.retry.backoff.max.ms remote.log.manager.task.retry.backoff.ms \
         remote.log.manager.task.retry.jitter remote.log.manager.thread.pool.size \
         remote.log.metadata.custom.metadata.max.bytes remote.log.metadata.manager.class.name \
         remote.log.metadata.manager.class.path remote.log.metadata.manager.impl.prefix \
         remote.log.metadata.manager.listener.name remote.log.reader.max.pending.tasks remote.log.reader.threads \
         remote.log.storage.manager.class.name remote.log.storage.manager.class.path \
         remote.log.storage.manager.impl.prefix remote.log.storage.system.enable",
    ),
    (
        "the keys cleaner.* say how compacted logs are cleaned",
        "log.cleaner.backoff.ms log.cleaner.dedupe.buffer.size log.cleaner.enable \
         log.cleaner.io.buffer.load.factor log.cleaner.io.buffer.size log.cleaner.io.max.bytes.per.second \
         log.cleaner.threads",
    ),
    (
        "how nodes wait for one another and fetch from leaders is fixed",
        "initial.broker.registration.timeout.ms num.replica.fetchers replica.fetch.backoff.ms \
         replica.fetch.max.bytes replica.fetch.min.bytes replica.fetch.response.max.bytes \
         replica.fetch.wait.max.ms replica.high.watermark.checkpoint.interval.ms \
         replica.socket.receive.buffer.bytes replica.socket.timeout.ms \
         unclean.leader.election.interval.ms",
    ),
    (
        "metadata is the matter of a Raft group of its own, whose keys are cluster.peers and metadata.snapshot_entries",
        "controller.listener.names controller.performance.always.log.threshold.ms \
         controller.performance.sample.period.ms controller.quorum.append.linger.ms \
         controller.quorum.auto.join.enable controller.quorum.bootstrap.servers \
         controller.quorum.election.backoff.max.ms controller.quorum.election.timeout.ms \
         controller.quorum.fetch.max.bytes controller.quorum.fetch.snapshot.max.bytes \
         controller.quorum.fetch.timeout.ms controller.quorum.request.timeout.ms \
         controller.quorum.retry.backoff.ms controller.socket.timeout.ms \
         internal.metadata.delete.delay.millis internal.metadata.log.segment.bytes \
         internal.metadata.max.batch.size.in.bytes metadata.log.dir \
         metadata.log.max.record.bytes.between.snapshots metadata.log.max.snapshot.interval.ms \
         metadata.log.segment.bytes metadata.log.segment.ms metadata.max.idle.interval.ms \
         metadata.max.retention.bytes metadata.max.retention.ms process.roles",
    ),
    (
        "tasks share the threads of the runtime, and there are no pools to size",
        "background.threads num.io.threads num.network.threads num.recovery.threads.per.data.dir \
         num.replica.alter.log.dirs.threads",
    ),
    (
        "what waits is a task with a deadline, not an entry of a purgatory",
        "delete.records.purgatory.purge.interval.requests fetch.purgatory.purge.interval.requests \
         producer.purgatory.purge.interval.requests",
    ),
    (
        "every record is synced before it is acknowledged",
        "log.flush.interval.ms log.flush.offset.checkpoint.interval.ms log.flush.scheduler.interval.ms \
         log.flush.start.offset.checkpoint.interval.ms",
    ),
    (
        "metrics are served on the admin port, and there are no reporters to load",
        "kafka.metrics.polling.interval.secs kafka.metrics.reporters metric.reporters metrics.num.samples \
         metrics.recording.level metrics.sample.window.ms telemetry.max.bytes",
    ),
    (
        "no classes are loaded into the broker",
        "alter.config.policy.class.name config.providers create.topic.policy.class.name",
    ),
    ("there is one data directory", "cordoned.log.dirs log.dir.failure.timeout.ms"),
    (
        "buffers and backlog of sockets are left to the operating system",
        "socket.connection.setup.timeout.max.ms socket.connection.setup.timeout.ms socket.listen.backlog.size \
         socket.receive.buffer.bytes socket.send.buffer.bytes",
    ),
    ("the broker makes no requests to others yet", "request.timeout.ms"),
    ("the most partitions of a request are fixed", "max.request.partition.size.limit"),
    ("segments of several partitions are begun without jitter", "log.roll.jitter.ms"),
    ("how often it is looked for idle producers is fixed", "producer.id.expiration.check.interval.ms"),
    ("only what is stable is on offer", "unstable.api.versions.enable unstable.feature.versions.enable"),
    ("a start has the deadlines that it needs", "log.initial.task.delay.ms server.max.startup.time.ms"),
];
