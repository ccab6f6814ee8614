// usage: java -cp <jose4j and slf4j-api> Verify.java <key set address> <issuer> <token>; prints the claims, or fails with the reason.

import org.jose4j.jwa.AlgorithmConstraints;
import org.jose4j.jwk.HttpsJwks;
import org.jose4j.jwt.consumer.JwtConsumer;
import org.jose4j.jwt.consumer.JwtConsumerBuilder;
import org.jose4j.keys.resolvers.HttpsJwksVerificationKeyResolver;

class Verify {
    public static void main(String[] arguments) throws Exception {
        JwtConsumer consumer = new JwtConsumerBuilder()
            .setVerificationKeyResolver(new HttpsJwksVerificationKeyResolver(new HttpsJwks(arguments[0])))
            .setExpectedIssuer(arguments[1])
            .setExpectedAudience("herald")
            .setExpectedType(true, "at+jwt")
            .setRequireExpirationTime()
            .setRequireIssuedAt()
            .setRequireNotBefore()
            .setRequireSubject()
            .setRequireJwtId()
            .setJwsAlgorithmConstraints(AlgorithmConstraints.ConstraintType.PERMIT, "RS256", "EdDSA")
            .build();
        System.out.println(consumer.process(arguments[2]).getJwtClaims().toJson());
    }
}
